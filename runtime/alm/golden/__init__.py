"""What the original gave for small inputs: with it a device proves itself.

`golden/PART.safetensors` has a part's inputs and the original's outputs (`vectors`);
`golden/runs.json` has whole runs: clips, prompts, and the original's tokens (`runs`).
"""
