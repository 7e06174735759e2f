"""The command `gumbel` of the package: exit codes, pipes, signals, sweeps that start it again."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest

SCRIPT = pathlib.Path(sys.executable).parent / "gumbel"
MODULE = [sys.executable, "-m", "gumbel_argmax"]
# The script that an installation has made, where there is one.
WAYS = [MODULE] + ([[str(SCRIPT)]] if SCRIPT.exists() else [])
both = pytest.mark.parametrize("gumbel", WAYS, ids=lambda way: pathlib.Path(way[-1]).name)
PROBLEM = '{"structure":"pairwise","unary":[1,-2,0.5],"pairs":[[0,1,3],[1,2,-1]]}\n'
SMALL = ["--hidden", "16", "--train-limit", "400", "--eval-limit", "100", "--threads", "1"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Not in a folder of which a part is the package without its native module."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GUMBEL_DATA", raising=False)


def run(gumbel, *args, **options):
    return subprocess.run([*gumbel, *args], capture_output=True, text=True, timeout=120, **options)


@both
def test_exit_codes_are_those_of_the_program(gumbel):
    found = run(gumbel, "--version")
    assert found.returncode == 0 and found.stdout.startswith("gumbel ")
    for args, code, said in [
        (["bogus"], 2, "gumbel: unrecognized subcommand 'bogus'"),
        (["train", "--latent", "pairwise:0"], 2, "gumbel: "),
        (["evaluate", "nothing-here"], 1, "gumbel: nothing-here"),
    ]:
        found = run(gumbel, *args)
        assert found.returncode == code and found.stderr.startswith(said) and found.stderr.count("\n") == 1, found
        assert not found.stdout
    found = run(gumbel)
    assert found.returncode == 2 and "Usage: gumbel" in found.stderr


@both
def test_problems_are_solved_through_a_pipe(gumbel):
    with subprocess.Popen([*gumbel, "solve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        for _ in range(3): # one after the other: an answer comes before the next question
            process.stdin.write(PROBLEM)
            process.stdin.flush()
            found = json.loads(process.stdout.readline())
            assert found["z"] == [1, 1, 0] and found["value"] == 2 and found["proved"]
        process.stdin.close()
        assert process.wait(timeout=60) == 0
    # A reader that goes away is no error.
    found = subprocess.run(["sh", "-c", '"$@" list latents --json | head -n 1', "sh", *gumbel], capture_output=True)
    assert json.loads(found.stdout)["name"] and not found.stderr


@both
def test_ctrl_c_ends_what_catches_no_signal(gumbel):
    process = subprocess.Popen([*gumbel, "solve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    process.stdin.write(PROBLEM)
    process.stdin.flush()
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == -signal.SIGINT
    process.stdin.close()
    process.stdout.close()


def test_ctrl_c_stops_a_training_which_goes_on_later(tmp_path):
    train = [*MODULE, "train", "--quiet", "--epochs", "1000", "--out", "run", *SMALL]
    process = subprocess.Popen(train, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 60
    while not (tmp_path / "run" / "best.safetensors").exists() and time.monotonic() < end:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130 and said.startswith("gumbel: stopped"), said
    found = run(MODULE, "evaluate", "run", "--json")
    assert found.returncode == 0 and json.loads(found.stdout.splitlines()[0])["bound"] > 0


@both
def test_a_sweep_starts_the_program_again(gumbel, tmp_path):
    (tmp_path / "grid.toml").write_text(
        '[run]\nhidden = "16"\ntrain-limit = 400\neval-limit = 100\nepochs = 1\nlatent = ["binary:4", "chain:3x2"]\n'
    )
    found = run(gumbel, "sweep", "grid.toml", "--out", "out", "--jobs", "2")
    assert found.returncode == 0, found
    assert len(list((tmp_path / "out").glob("*/summary.json"))) == 2
    found = run(gumbel, "sweep", "grid.toml", "--out", "out", "--print-sbatch")
    words = next(line for line in found.stdout.splitlines() if " sweep " in line).split(" sweep ")[0]
    program, *rest = words.split()
    assert shutil.which(program) and rest == (["-m", "gumbel_argmax"] if "-m" in gumbel else gumbel)


def test_arguments_need_not_be_text(tmp_path):
    found = subprocess.run([*MODULE, "evaluate", os.fsdecode(b"no\xffthing")], capture_output=True)
    assert found.returncode == 1 and found.stderr.count(b"\n") == 1
