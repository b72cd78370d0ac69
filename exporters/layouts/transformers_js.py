"""transformers.js: the sessions, names and configs of its AudioTextToText models.

Its own processor makes the spectrogram, so the front end is left out; its model class puts what was
heard among the embeddings. A clip longer than a window is cut by it, each piece with a loudest
value of its own.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx_ir as ir
from tokenizers import Tokenizer

from alm.artifacts.manifest import Manifest
from alm.artifacts.part import Part
from alm.errors import BadArtifacts, MissingFile
from exporters.layouts import Made, _graphs
from exporters.layouts._graphs import Site, named, port

NAME = "transformers.js"
FAMILIES = ("voxtral",)
DIALECT = "ort"
FOLDER = "transformers.js"
EMBED, HEAR, DECODE = "embed_tokens", "audio_encoder", "decoder_model_merged"
OWN = (
    *("onnx", "config.json", "generation_config.json", "preprocessor_config.json"),
    *("tokenizer.json", "tokenizer_config.json"),
)
DATA = "_data"  # behind a graph's name: the file of its weights
PROCESSORS = {"voxtral": "VoxtralProcessor"}
HEARS = ("encoder", "bridge")
FLOAT, INT64 = ir.DataType.FLOAT, ir.DataType.INT64


def write(made: Made) -> None:
    """Write the three graphs, and the configs that its classes read.

    Raises:
        BadArtifacts: parts of a form that the sessions have no place for.
        MissingFile: a config that the checkpoint lacks.
    """
    said, files = made.manifest, made.files
    parts = {part.role: part for part in said.parts}
    hears = [part for part in said.parts if part.role in HEARS]
    graphs = {
        EMBED: embed_tokens(made, parts["table"]),
        HEAR: audio_encoder(made, hears),
        DECODE: _graphs.decoder(made.artifacts, parts["decoder"]),
    }
    shards = {
        name: files.save(model, f"onnx/{name}.onnx", suffix=DATA) for name, model in graphs.items()
    }
    source = made.source if made.source.is_dir() else made.source.parent
    external = {name: count for name, count in shards.items() if count}
    theirs = {"dtype": "fp32", "use_external_data_format": external}
    config = _read(source, "config.json") | {"transformers.js_config": theirs}
    files.write("config.json", config)
    files.write("generation_config.json", generation(said))
    features = _read(source, "preprocessor_config.json")
    files.write("preprocessor_config.json", features | {"processor_class": PROCESSORS[said.family]})
    files.take("tokenizer.json", "tokenizer.json")
    files.write("tokenizer_config.json", tokenizer_config(made.artifacts / "tokenizer.json", said))


def embed_tokens(made: Made, table: Part) -> ir.Model:
    """`input_ids` [batch, seq] to `inputs_embeds`."""
    site, hidden = Site(), made.manifest.facts.dimensions.hidden
    ids = port("input_ids", INT64, _graphs.BATCH, "sequence_length")
    embeds = _graphs.embedded(site, made.artifacts, table, ids)
    axes = (_graphs.BATCH, "sequence_length", hidden)
    return site.model([ids], [named(embeds, "inputs_embeds", FLOAT, *axes)])


def audio_encoder(made: Made, parts: list[Part]) -> ir.Model:
    """`audio_values` [windows, mels, frames] to `audio_features` [windows, rows, hidden].

    Raises:
        BadArtifacts: parts that take more than a spectrogram.
    """
    model = _graphs.chain(made.artifacts, parts)
    graph = model.graph
    if [value.name for value in graph.inputs] != ["log_mel"]:
        strange = ", ".join(value.name or "" for value in graph.inputs)
        raise BadArtifacts(f"layout {NAME} has a log-mel spectrogram, not {strange}")
    outputs = {value.name or "": value for value in graph.outputs}
    heard = outputs["audio_embeds"]
    graph.inputs[0].name, heard.name = "audio_values", "audio_features"
    graph.outputs[:] = [heard]
    return model


def generation(said: Manifest) -> dict[str, Any]:
    """generation_config.json: greedy, which is what the tokens were compared with."""
    tokens = said.facts.tokens
    ids = {"eos_token_id": [*tokens.eos], "pad_token_id": tokens.eos[0]}
    bos = {} if tokens.bos is None else {"bos_token_id": tokens.bos}
    return ids | bos | {"do_sample": False, "num_beams": 1}


def tokenizer_config(path: Path, said: Manifest) -> dict[str, Any]:
    """tokenizer_config.json: a class that takes tokenizer.json as it is."""
    eos = Tokenizer.from_file(str(path)).id_to_token(said.facts.tokens.eos[0])
    return {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": eos}


def _read(folder: Path, name: str) -> dict[str, Any]:
    try:
        return json.loads((folder / name).read_text("utf-8"))
    except OSError as error:
        raise MissingFile(f"layout {NAME} wants {folder / name}, which is not there") from error
