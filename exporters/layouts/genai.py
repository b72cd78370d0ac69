"""onnxruntime-genai: samples and ids in, by its contract for LFM2-Audio.

That runtime knows no family of ours by name. Of its types that take sound, `lfm2_audio` alone wants
nothing of a picture: a graph that hears, one that puts what was heard among the embeddings of ids,
and a decoder. What it hears are samples here, so no feature extractor is needed. Ids of prompts and
how many embeddings a clip has, for which its config has no field, are in
genai_prompts.json.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from tokenizers import Tokenizer

from alm.artifacts.manifest import Manifest
from alm.artifacts.part import Part
from alm.errors import BadArtifacts
from alm.ports import CACHE_IN, CACHE_OUT, is_carried
from alm.text.prompt import Prompter
from exporters.layouts import Made, _graphs
from exporters.layouts._graphs import Site, named, port

NAME = "genai"
FAMILIES = ("salmonn", "voxtral")
DIALECT = "ort"
FOLDER = ""
SPEECH, EMBEDDING, DECODER = (f"genai_{name}.onnx" for name in ("speech", "embedding", "decoder"))
CONFIG, PROMPTS, TOKENIZER = "genai_config.json", "genai_prompts.json", "tokenizer_config.json"
OWN = (SPEECH, EMBEDDING, DECODER, CONFIG, PROMPTS, TOKENIZER)

HEARS = ("frontend", "encoder", "bridge")
EMBEDS, LENGTHS = "audio_embeds", "audio_embeds_lengths"
FLOAT, INT64 = ir.DataType.FLOAT, ir.DataType.INT64


def write(made: Made) -> None:
    """Write graphs, genai_config.json, genai_prompts.json and the tokenizer's files.

    Raises:
        BadArtifacts: parts of a form that the contract has no place for.
    """
    said, files = made.manifest, made.files
    parts = {part.role: part for part in said.parts}
    hears = [part for part in said.parts if part.role in HEARS]
    files.save(speech(made, hears), SPEECH)
    tokenizer = Tokenizer.from_file(str(made.artifacts / "tokenizer.json"))
    audio = audio_id(said, tokenizer, parts["table"])
    files.save(embedding(made, parts["table"], audio), EMBEDDING)
    files.save(_graphs.decoder(made.artifacts, parts["decoder"]), DECODER)
    files.write(CONFIG, config(said, parts["decoder"], audio))
    files.write(PROMPTS, prompts(said, tokenizer, audio))
    files.write(TOKENIZER, tokenizer_config(said, tokenizer))


def speech(made: Made, parts: list[Part]) -> ir.Model:
    """`audio_embeds`, the samples float32 [1, samples] of a clip, to its embeddings [rows, hidden].

    Raises:
        BadArtifacts: parts that take more than samples, or keep a state.
    """
    strange = [name for part in parts for name in part.inputs if is_carried(name)]
    pieces = [part.name for part in parts if part.pieces]
    if strange or pieces:
        raise BadArtifacts(f"layout {NAME} hears a clip as a whole, not {strange or pieces}")
    model = _graphs.chain(made.artifacts, parts)
    graph, site = model.graph, Site()
    given = {value.name or "": value for value in graph.inputs}
    if unknown := given.keys() - {"pcm", "pcm_lengths"}:
        raise BadArtifacts(f"layout {NAME} has samples, not {', '.join(sorted(unknown))}")
    pcm = given["pcm"]
    if "pcm_lengths" in given:
        _graphs.replace(given["pcm_lengths"], site.size(pcm, 1))
    pcm.name, pcm.shape = EMBEDS, ir.Shape((1, "samples"))
    graph.insert_before(graph[0], site.nodes)
    outputs, behind = {value.name or "": value for value in graph.outputs}, Site()
    heard, hidden = outputs[EMBEDS], made.manifest.facts.dimensions.hidden
    heard.name = "heard"
    rows = behind.op("Reshape", heard, behind.ints(-1, hidden))
    if LENGTHS in outputs:
        rows = behind.op("Slice", rows, behind.ints(0), outputs[LENGTHS], behind.ints(-2))
    graph.extend(behind.nodes)
    graph.initializers.update(site.constants | behind.constants)
    graph.inputs[:] = [pcm]
    graph.outputs[:] = [named(rows, "audio_features", FLOAT, "rows", hidden)]
    return model


def embedding(made: Made, table: Part, audio: int) -> ir.Model:
    """`input_ids` [1, seq] and `audio_features` [rows, hidden] to `inputs_embeds`.

    The n-th id that is `audio` gets the n-th row.
    """
    sizes, site = made.manifest.facts.dimensions, Site()
    ids = port("input_ids", INT64, _graphs.BATCH, "sequence_length")
    heard = port("audio_features", FLOAT, "rows", sizes.hidden)
    last = site.ints((sizes.table or sizes.vocab) - 1)
    text = _graphs.embedded(site, made.artifacts, table, site.op("Min", ids, last))
    is_audio = site.op("Equal", ids, site.ints(audio))
    flat = site.cast(site.op("Reshape", is_audio, site.ints(-1)), INT64)
    order = site.op("Sub", site.op("CumSum", flat, site.number("axis", 0)), site.ints(1))
    # Behind the rows is one of zeros, for every id that is none of the sound's.
    silent = site.constant("silence", np.zeros((1, sizes.hidden), np.float32))
    rows = site.op("Concat", heard, silent, axis=0)
    picked = site.op("Where", site.cast(flat, ir.DataType.BOOL), order, site.size(heard, 0))
    sound = site.op("Reshape", site.op("Gather", rows, picked, axis=0), site.op("Shape", text))
    chosen = site.op("Where", site.op("Unsqueeze", is_audio, site.ints(-1)), sound, text)
    axes = (_graphs.BATCH, "sequence_length", sizes.hidden)
    return site.model([ids, heard], [named(chosen, "inputs_embeds", FLOAT, *axes)])


def audio_id(said: Manifest, tokenizer: Tokenizer, table: Part) -> int:
    """The id that stands for an embedding of sound: the placeholder's, or one behind the table."""
    spelled = tokenizer.encode(said.facts.prompt.placeholder, add_special_tokens=False).ids
    sizes = said.facts.dimensions
    return spelled[0] if len(spelled) == 1 else sizes.table or sizes.vocab


def config(said: Manifest, decoder: Part, audio: int) -> dict[str, Any]:
    """genai_config.json."""
    sizes, cache = said.facts.dimensions, decoder.inputs[f"{CACHE_IN}0.key"].axes
    tokens = said.facts.tokens
    names = {f"{kind}_names": f"%d.{kind.rpartition('_')[2]}" for kind in ("key", "value")}
    model = {
        "type": "lfm2_audio",
        "bos_token_id": tokens.bos if tokens.bos is not None else tokens.eos[0],
        "eos_token_id": list(tokens.eos),
        "pad_token_id": tokens.eos[0],
        "vocab_size": sizes.vocab,
        "context_length": sizes.context,
        "audio_token_id": audio,
        "speech": {
            "filename": SPEECH,
            "inputs": {"audio_embeds": EMBEDS},
            "outputs": {"audio_features": "audio_features"},
        },
        "embedding": {
            "filename": EMBEDDING,
            "inputs": {"input_ids": "input_ids", "audio_features": "audio_features"},
            "outputs": {"inputs_embeds": "inputs_embeds"},
        },
        "decoder": {
            "filename": DECODER,
            "head_size": cache[3],
            "hidden_size": sizes.hidden,
            "num_attention_heads": sizes.heads,
            "num_hidden_layers": sizes.layers,
            "num_key_value_heads": cache[1],
            "inputs": {"inputs_embeds": "inputs_embeds", "attention_mask": "attention_mask"}
            | {f"past_{name}": CACHE_IN + value for name, value in names.items()},
            "outputs": {"logits": "logits"}
            | {f"present_{name}": CACHE_OUT + value for name, value in names.items()},
        },
    }
    search = {"do_sample": False, "num_beams": 1, "max_length": sizes.context}
    return {"model": model, "search": search | {"past_present_share_buffer": True}}


def prompts(said: Manifest, tokenizer: Tokenizer, audio: int) -> dict[str, Any]:
    """How a clip is given, and of every task the ids before and behind its embeddings."""
    facts = said.facts
    prompter = Prompter(tokenizer, facts.prompt, facts.tokens)
    tasks = {name: prompter.build(name).pieces for name in facts.prompt.tasks}
    return {
        "rate": facts.audio.rate,
        "least_samples": facts.audio.least_samples,
        "window_samples": facts.audio.window_samples,
        "audio_tokens": facts.dimensions.audio_tokens,
        "audio_token_id": audio,
        "tasks": {name: {"before": ids[0], "behind": ids[1]} for name, ids in tasks.items()},
    }


def tokenizer_config(said: Manifest, tokenizer: Tokenizer) -> dict[str, Any]:
    """What that runtime wants to know beside tokenizer.json."""
    tokens = said.facts.tokens
    spelled = {"eos_token": tokens.eos[0]} | (
        {"bos_token": tokens.bos} if tokens.bos is not None else {}
    )
    named_tokens = {name: tokenizer.id_to_token(number) for name, number in spelled.items()}
    return {"tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": False} | named_tokens
