"""What ``rank-rl teach`` wrote, published as a dataset that ``datasets`` loads."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hub_client import Client, environment
from hub_server import Fault, Hub, card_errors
from huggingface_hub import DatasetCard

from rank_rl.data import lessons as lesson_files
from rank_rl.data.lessons import Lesson, as_record
from rank_rl.data.tasks import read_tasks, write_tasks
from rank_rl.hub.dataset import DataOptions, data_tree
from rank_rl.records import Candidate, Order, Query, RankingTask, numbered

QUERY = Query(qid="q1", text="which river?", metadata={"hops": 2})
FOUND = (
    Candidate(docid="/m/1", text="The Rhine.", title="Rhine", rank=1, score=2.5),
    Candidate(docid="/m/2", text="See /etc/river/notes.", rank=2),
)


@pytest.fixture
def taught(tmp_path: Path) -> Path:
    """An output of stage teach with one lesson and one task."""
    folder = tmp_path / "teach"
    (folder / "store").mkdir(parents=True)
    view = numbered(QUERY, FOUND)
    lesson = Lesson(view=view, answer=Order(docids=("/m/2", "/m/1")), teacher="big", licence="mit")
    lesson_files.write(folder / "lessons.jsonl", [as_record(lesson, prompt=[], completion=[])])
    source = f"{tmp_path}/data/run.trec"
    write_tasks(
        folder / "tasks.jsonl",
        [RankingTask(query=QUERY, candidates=FOUND, grades={"/m/1": 2}, source=source)],
    )
    report = {
        "counts": {"lessons": 1, "tasks": 1},
        "source": {"recipe": f"{tmp_path}/recipes/teach.yaml (abc)", "teachers": {"main": "big"}},
    }
    (folder / "report.json").write_text(json.dumps(report))
    (folder / "README.md").write_text(
        '---\nlicense: "cc-by-4.0"\ntask_categories: [text-ranking]\ntags: [rank_rl, reasoning]\n'
        "configs:\n- {config_name: lessons, data_files: lessons.jsonl}\n---\n\n# lessons\n\n"
        f"| recipe | {tmp_path}/recipes/teach.yaml |\n"
    )
    for name in ("exchanges.jsonl", "ledger.json", "store/rank-0.sqlite"):
        (folder / name).write_text("private")
    return folder


def test_lessons_and_tasks_go_as_they_are_and_as_parquet(taught: Path, tmp_path: Path):
    from pyarrow import parquet

    made = data_tree(DataOptions(folder=taught, repo="me/data"), tmp_path / "scratch")
    assert [i.path for i in made.items] == [
        *("README.md", "lessons.jsonl", "lessons.parquet", "published.json", "report.json"),
        *("tasks.jsonl", "tasks.parquet"),
    ]
    assert made.left_out == ("exchanges.jsonl", "ledger.json", "store")
    data = {i.path: i.source if isinstance(i.source, bytes) else i.source.read_bytes()
            for i in made.items}  # fmt: skip
    (task,) = parquet.read_table(io.BytesIO(data["tasks.parquet"])).to_pylist()
    assert task["grades"] == [{"docid": "/m/1", "grade": 2}]
    assert [c["docid"] for c in task["candidates"]] == ["/m/1", "/m/2"]
    assert task["candidates"][1]["text"] == "See /etc/river/notes."
    assert task["source"] == "data/run.trec"
    (tmp_path / "tasks.jsonl").write_bytes(data["tasks.jsonl"])
    (again,) = read_tasks(tmp_path / "tasks.jsonl")
    assert (again.candidates, again.query) == (FOUND, QUERY)
    assert again.source == "data/run.trec"
    texts = {path: d for path, d in data.items() if not path.endswith(".parquet")}
    assert not [path for path, d in texts.items() if str(tmp_path).encode() in d]


def test_the_card_is_the_stages_page_under_metadata_of_the_hub(taught: Path, tmp_path: Path):
    options = DataOptions(folder=taught, repo="me/data", languages=("en",))
    made = data_tree(options, tmp_path / "scratch")
    text = next(i.source for i in made.items if i.path == "README.md")
    assert isinstance(text, bytes)
    assert card_errors(text.decode(), "dataset") == []
    card = DatasetCard(text.decode())
    assert card.data.license == "cc-by-4.0" and card.data.language == ["en"]
    assert card.data.task_categories == ["text-ranking"] and card.data.size_categories == ["n<1K"]
    assert card.data.configs == [
        {"config_name": "lessons", "data_files": "lessons.parquet"},
        {"config_name": "tasks", "data_files": "tasks.parquet"},
    ]
    assert "| recipe | recipes/teach.yaml |" in card.text and "load_dataset(" in card.text


def test_a_folder_of_teach_is_a_dataset_and_loads_back(hub: Hub, client: Client, taught: Path):
    done = client.publish(taught, "--repo", "me/data", "--license", "mit")
    assert f"{hub.url}/datasets/me/data at commit" in done.out
    assert set(hub.files("me/data", kind="dataset")) >= {"lessons.parquet", "README.md"}
    again = client.publish(taught, "--repo", "me/data", "--license", "mit")
    assert "nothing changed" in again.out
    code = (
        "from huggingface_hub import snapshot_download\n"
        "from datasets import load_dataset\n"
        "folder = snapshot_download('me/data', repo_type='dataset')\n"
        "rows = load_dataset(folder, 'tasks', split='train')\n"
        "print(rows[0]['qid'], len(load_dataset(folder, 'lessons', split='train')))\n"
    )
    loaded = client.python(code)
    assert loaded.out.split() == ["q1", "1"], loaded.err


def test_a_killed_upload_goes_on_where_it_was(hub: Hub, client: Client, taught: Path, tmp_path):
    lessons = taught / "lessons.jsonl"
    lessons.write_text(lessons.read_text() * 1000)  # large, so that it goes in parts
    fault = Fault(r"^/part/\w+/2$", after=20_000, hold=True)
    hub.faults = [fault]
    process = subprocess.Popen(
        [sys.executable, "-m", "rank_rl", "publish", str(taught), "--repo", "me/data"],
        env=environment(hub.url, tmp_path / "home"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        assert fault.reached.wait(60), process.stderr and process.stderr.read()
        for _ in range(600):  # the smaller files go beside it
            if len(hub.sent("POST", "^/verify/")) == 2:
                break
            time.sleep(0.05)
    finally:
        process.kill()
        process.wait()
        fault.released.set()
    assert set(hub.files("me/data", kind="dataset")) == {".gitattributes"}  # as it was
    whole = hub.sent("PUT", "^/storage/")
    assert len(whole) == 2
    hub.log.clear()
    client.publish(taught, "--repo", "me/data")
    assert not hub.sent("PUT", "^/storage/")
    assert hub.sent("PUT", "^/part/")
    assert hub.files("me/data", kind="dataset")["lessons.jsonl"] == lessons.read_bytes()


def test_a_model_and_its_lessons_go_together(hub: Hub, client: Client, finished, taught: Path):
    both = ("--dataset", taught, "--dataset-repo", "me/lessons")
    client.publish(finished.checkpoint, "--repo", "me/tiny", *both)
    assert "lessons.parquet" in hub.files("me/lessons", kind="dataset")
    assert b"datasets:\n- me/lessons" in hub.files("me/tiny")["README.md"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--type", "model"), "is an output of rank-rl teach; expected --type dataset"),
        (("--type", "space"), "expected one of auto, model, dataset"),
        (("--merge",), "belong to a checkpoint"),
        (("--into", "x"), "--into: only with --dry-run"),
    ],
)
def test_options_of_the_other_kind_are_refused(client: Client, taught: Path, options, words):
    done = client.publish(taught, "--repo", "me/data", *options, status=2)
    assert words in done.err


def test_a_checkpoint_is_no_dataset(client: Client, finished):
    where = (finished.checkpoint, "--repo", "me/tiny")
    done = client.publish(*where, "--type", "dataset", status=2)
    assert "is a checkpoint; expected --type model" in done.err
    done = client.publish(*where, "--dataset", finished.root, status=2)
    assert "--dataset-repo: missing" in done.err


def test_the_files_of_a_dry_run_can_be_looked_at(hub: Hub, client: Client, taught: Path, tmp_path):
    into = tmp_path / "seen"
    client.publish(taught, "--repo", "me/data", "--dry-run", "--into", into)
    assert {f.name for f in into.iterdir()} >= {"README.md", "tasks.parquet", "published.json"}
    again = client.publish(taught, "--repo", "me/data", "--dry-run", "--into", into, status=2)
    assert "is not empty" in again.err
    assert hub.log == []
