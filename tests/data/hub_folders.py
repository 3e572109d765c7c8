"""Folders as ``hf download`` leaves them: the configurations, splits, columns and types of the Hub.

Schemas as the dataset cards of xlangai/BRIGHT, R2MED/Biology, princeton-nlp/LitSearch,
sentence-transformers/NanoBEIR-en, zeta-alpha-ai/NanoSciFact, BeIR/scifact, BeIR/scifact-qrels and
mteb/scifact give them; the rows are made up.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

TEXT, TEXTS, INT = pa.string(), pa.list_(pa.string()), pa.int64()
Tables = dict[tuple[str, str], list[dict[str, Any]]]
Schema = dict[str, pa.DataType]


def parquet_folder(folder: Path, tables: Tables, schemas: dict[str, Schema]) -> Path:
    """Write one Parquet file a table, and the README.md that says which is which."""
    files: dict[str, list[dict[str, str]]] = {}
    for (config, split), rows in tables.items():
        path = folder / config / f"{split}-00000-of-00001.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        table = pa.Table.from_pylist(rows, schema=pa.schema(schemas[config]))
        pq.write_table(table, path)
        files.setdefault(config, []).append({"split": split, "path": f"{config}/{split}-*"})
    return with_readme(folder, files)


def with_readme(folder: Path, files: dict[str, list[dict[str, str]]]) -> Path:
    """Write README.md with the configurations."""
    configs = [{"config_name": c, "data_files": parts} for c, parts in files.items()]
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump({'configs': configs})}---\n# Card\n")
    return folder


def jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write one object a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows))


EXAMPLES: Schema = {
    "query": TEXT,
    "reasoning": TEXT,
    "id": TEXT,
    "excluded_ids": TEXTS,
    "gold_ids_long": TEXTS,
    "gold_ids": TEXTS,
    "gold_answer": TEXT,
}
DOCUMENTS: Schema = {"id": TEXT, "content": TEXT}
BRIGHT: dict[str, Schema] = {
    "examples": EXAMPLES,
    "gpt4_reason": EXAMPLES,
    "documents": DOCUMENTS,
    "long_documents": DOCUMENTS,
}


def example(qid: str, query: str, **changes: list[str]) -> dict[str, Any]:
    """A row of BRIGHT's ``examples``."""
    row = {
        "query": query,
        "reasoning": "a secret of the annotators",
        "id": qid,
        "excluded_ids": ["N/A"],
        "gold_ids_long": ["N/A"],
        "gold_ids": ["N/A"],
        "gold_answer": "another secret",
    }
    return {**row, **changes}


def bright_folder(folder: Path) -> Path:
    """BRIGHT with a task that has whole pages and one that excludes documents."""
    moth = "why do moths fly to lamps"
    pages = [
        {"id": "moths/Photo taxis.txt", "content": "Moths fly towards light. It is called so."},
        {"id": "moths/Lamp.txt", "content": "A lamp makes light."},
    ]
    parts = [
        {"id": "moths/Photo taxis_0.txt", "content": "Moths fly towards light."},
        {"id": "moths/Photo taxis_1.txt", "content": "It is called so."},
        {"id": "moths/Lamp_0.txt", "content": "A lamp makes light."},
    ]
    gold = {
        "gold_ids": ["moths/Photo taxis_0.txt", "moths/Photo taxis_1.txt"],
        "gold_ids_long": ["moths/Photo taxis.txt"],
    }
    kinds = ["sorted", "negative", "even", "prime", "missing"]
    sums = [
        {"id": f"sum/{n}", "content": f"sum two {kind} numbers"} for n, kind in enumerate(kinds)
    ]
    tables: Tables = {
        ("examples", "biology"): [example("0", moth, **gold)],
        ("examples", "leetcode"): [
            example("0", "sum two numbers", excluded_ids=["sum/0", "sum/1"], gold_ids=["sum/4"]),
            example("1", "sum prime numbers", gold_ids=["sum/3"]),
        ],
        ("gpt4_reason", "biology"): [example("0", "Phototaxis of insects", **gold)],
        ("documents", "biology"): parts,
        ("documents", "leetcode"): sums,
        ("long_documents", "biology"): pages,
    }
    return parquet_folder(folder, tables, BRIGHT)


def r2med_folder(folder: Path) -> Path:
    """One task of R2MED: three JSONL files."""
    jsonl(folder / "corpus.jsonl", [{"id": f"p{n}", "text": f"passage {n}"} for n in range(4)])
    jsonl(folder / "query.jsonl", [{"id": "0", "text": "which passage is it?"}])
    jsonl(
        folder / "qrels.jsonl",
        [{"q_id": "0", "p_id": "p2", "score": 1}, {"q_id": "0", "p_id": "p3", "score": 1}],
    )
    names = {"qrels": "qrels.jsonl", "corpus": "corpus.jsonl", "query": "query.jsonl"}
    return with_readme(folder, {c: [{"split": c, "path": p}] for c, p in names.items()})


def litsearch_folder(folder: Path) -> Path:
    """LitSearch: numbers as ids of papers, none for queries."""
    integers = pa.list_(INT)
    schemas: dict[str, Schema] = {
        "query": {
            "query_set": TEXT,
            "query": TEXT,
            "specificity": INT,
            "quality": INT,
            "corpusids": integers,
        },
        "corpus_clean": {
            "corpusid": INT,
            "title": TEXT,
            "abstract": TEXT,
            "citations": integers,
            "full_paper": TEXT,
        },
    }
    papers = [(202719327, "Distilling", "We distil."), (7, "Pruning", "We prune."), (9, "", "?")]
    tables: Tables = {
        ("query", "full"): [
            {
                "query_set": "inline_acl",
                "query": "papers on distillation",
                "specificity": 0,
                "quality": 2,
                "corpusids": [202719327, 7],
            },
            {
                "query_set": "manual_iclr",
                "query": "which paper prunes?",
                "specificity": 1,
                "quality": 1,
                "corpusids": [7],
            },
        ],
        ("corpus_clean", "full"): [
            {"corpusid": i, "title": t, "abstract": a, "citations": [7], "full_paper": "long"}
            for i, t, a in papers
        ],
    }
    return parquet_folder(folder, tables, schemas)


TEXT_ROWS: Schema = {"_id": TEXT, "text": TEXT}
PAIRS: Schema = {"query-id": TEXT, "corpus-id": TEXT}
NANO: dict[str, Schema] = {
    "corpus": TEXT_ROWS,
    "queries": TEXT_ROWS,
    "qrels": PAIRS,
    "bm25": {"query-id": TEXT, "corpus-ids": TEXTS},
}


def nano_folder(folder: Path) -> Path:
    """NanoBEIR-en with two tasks; in ArguAna the query stands in the corpus."""
    tables: Tables = {}
    for task, qid in (("NanoSciFact", "13"), ("NanoArguAna", "d1")):
        docids = ["d1", "d2", "d3"]
        tables["corpus", task] = [{"_id": d, "text": f"text of {d}"} for d in docids]
        tables["queries", task] = [{"_id": qid, "text": "text of d1"}]
        tables["qrels", task] = [{"query-id": qid, "corpus-id": "d3"}]
        tables["bm25", task] = [{"query-id": qid, "corpus-ids": docids}]
    return parquet_folder(folder, tables, NANO)


def nano_alone_folder(folder: Path) -> Path:
    """One task of NanoBEIR, as zeta-alpha-ai publishes each: split train, no first stage."""
    tables: Tables = {
        ("corpus", "train"): [{"_id": d, "text": f"text of {d}"} for d in ("d1", "d2")],
        ("queries", "train"): [{"_id": "13", "text": "text of d2"}],
        ("qrels", "train"): [{"query-id": "13", "corpus-id": "d2"}],
    }
    return parquet_folder(folder, tables, NANO)


TITLED: Schema = {"_id": TEXT, "title": TEXT, "text": TEXT}


def beir_tables() -> Tables:
    """Texts of a collection of BEIR."""
    return {
        ("corpus", "corpus"): [
            {"_id": "31", "title": "Bread", "text": "Rye bread."},
            {"_id": "32", "title": "", "text": "Rivers of Europe."},
        ],
        ("queries", "queries"): [
            {"_id": "1", "title": "", "text": "which bread?"},
            {"_id": "3", "title": "", "text": "which rivers?"},
        ],
    }


def beir_folders(folder: Path) -> tuple[Path, Path]:
    """BeIR/NAME and BeIR/NAME-qrels: texts as Parquet, judgements as TSV without configurations."""
    texts = parquet_folder(folder / "scifact", beir_tables(), {"corpus": TITLED, "queries": TITLED})
    qrels = folder / "scifact-qrels"
    qrels.mkdir()
    (qrels / "train.tsv").write_text("query-id\tcorpus-id\tscore\n3\t32\t1\n")
    (qrels / "test.tsv").write_text("query-id\tcorpus-id\tscore\n1\t31\t2\n1\t32\t0\n")
    (qrels / "README.md").write_text("# no configurations\n")
    return texts, qrels


def mteb_folder(folder: Path) -> Path:
    """mteb/NAME: judgements as configuration default, with fractional types."""
    scores: Schema = {"query-id": TEXT, "corpus-id": TEXT, "score": pa.float64()}
    tables: Tables = {
        ("default", "test"): [{"query-id": "1", "corpus-id": "31", "score": 1.0}],
        **beir_tables(),
    }
    return parquet_folder(folder, tables, {"default": scores, "corpus": TITLED, "queries": TITLED})
