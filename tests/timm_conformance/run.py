"""Run timm's own model tests on every model of rga_timm.

    python tests/timm_conformance/run.py                          # all models
    python tests/timm_conformance/run.py --models 'test_rga_*'    # quick: the small ones
    python tests/timm_conformance/run.py --sdist timm-1.0.31.tar.gz

timm's tests are not installed with timm: the source distribution of the very version that is
installed is fetched by pip, or given. Fails if a test fails, and also if one was left out; see
conformance_verdict.py for what counts as left out, stand_in_weights.py for what stands in for
downloads.
"""

import argparse
import importlib.metadata
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

from conformance_verdict import Run, problems, summary

HERE = Path(__file__).resolve().parent
TEST_FILE = "tests/test_models.py"


class ConformanceError(Exception):
    """The run cannot start; the message says why and what to do."""


def get_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--sdist",
        type=Path,
        metavar="PATH",
        help="timm's source distribution: .tar.gz, or folder (default: fetched by pip)",
    )
    parser.add_argument(
        "--models",
        nargs="+",
        default=["*"],
        metavar="PATTERN",
        help="models to test (default: all)",
    )
    parser.add_argument(
        "--tests", nargs="+", default=["*"], metavar="PATTERN", help="test functions (default: all)"
    )
    parser.add_argument(
        "--processes",
        type=int,
        default=os.cpu_count() or 1,
        metavar="N",
        help="side by side, with the cores shared out (default: one a core, %(default)s here)",
    )
    parser.add_argument("--times", action="store_true", help="print the seconds by model too")
    return parser


def fetch_sdist(version: str, folder: Path) -> Path:
    """timm's source distribution from pip's index.

    Raises:
        ConformanceError: If pip cannot get it.
    """
    pip = [sys.executable, "-m", "pip", "download", f"timm=={version}", "--no-deps"]
    options = ["--no-binary", "timm", "--quiet", "--disable-pip-version-check", "--dest", folder]
    done = subprocess.run([*pip, *options], capture_output=True, text=True)
    files = list(folder.glob("timm-*.tar.gz"))
    if done.returncode or not files:
        raise ConformanceError(
            f"pip could not download the source distribution of timm {version}, which holds its "
            f"tests; give it by --sdist. pip said:\n{done.stderr.strip()}"
        )
    return files[0]


def unpack_tests(sdist: Path, version: str, folder: Path) -> None:
    """Copy timm's tests and pytest settings to ``folder``, without its package.

    pytest puts the folder above ``tests`` first on the path: with the package beside them, the
    tests would import that one instead of the installed one.

    Raises:
        ConformanceError: If that is not a source distribution of this version.
    """
    wanted = re.compile(r"(tests/[^/]+\.py|pyproject\.toml|timm/version\.py)")
    files: dict[str, bytes] = {}
    if sdist.is_dir():
        for path in sdist.rglob("*"):
            if wanted.fullmatch(name := path.relative_to(sdist).as_posix()) and path.is_file():
                files[name] = path.read_bytes()
    elif sdist.is_file() and tarfile.is_tarfile(sdist):
        with tarfile.open(sdist) as tar:
            for member in tar:
                _, _, name = member.name.partition("/")  # below timm-1.2.3/
                if wanted.fullmatch(name) and (f := tar.extractfile(member)):
                    files[name] = f.read()
    else:
        raise ConformanceError(f"{sdist} is neither a folder nor a tar file")
    if TEST_FILE not in files:
        raise ConformanceError(f"{sdist} holds no {TEST_FILE}: give timm's source distribution")
    if f"'{version}'" not in files.pop("timm/version.py", b"").decode():
        raise ConformanceError(f"{sdist} is of another version than the installed timm, {version}")
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)


def start(shard: int, args: argparse.Namespace, folder: Path) -> subprocess.Popen:
    """One pytest process on its share of the tests, whose words go to a file."""
    # What would change timm's or pytest's ways: on GitHub timm leaves out tests.
    unwanted = ("GITHUB_ACTIONS", "PYTEST_ADDOPTS", "TIMM_USE_OLD_CACHE", "TORCH_DEVICE")
    env = {key: value for key, value in os.environ.items() if key not in unwanted}
    env |= {
        "PYTHONPATH": os.pathsep.join(filter(None, [str(HERE), env.get("PYTHONPATH")])),
        "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // args.processes)),
        "HF_HUB_OFFLINE": "1",
        "RGA_CONFORMANCE_RESULTS": str(folder / f"results-{shard}.jsonl"),
        "RGA_CONFORMANCE_MODELS": " ".join(args.models),
        "RGA_CONFORMANCE_TESTS": " ".join(args.tests),
        "RGA_CONFORMANCE_SHARD": f"{shard}/{args.processes}",
    }
    pytest = [sys.executable, "-m", "pytest", TEST_FILE, "-p", "timm_conformance_plugin"]
    with (folder / f"log-{shard}.txt").open("w") as log:
        return subprocess.Popen(
            [*pytest, "-p", "no:cacheprovider", "--quiet", "--tb=short"],
            cwd=folder,
            env=env,
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def read_results(folder: Path) -> Run:
    """What all processes have written so far."""
    run = Run()
    for file in sorted(folder.glob("results-*.jsonl")):
        # A line that is still being written, or that a killed process left, has no end.
        run.read(line for line in file.read_text().splitlines(keepends=True) if line[-1:] == "\n")
    return run


def wait(processes: list[subprocess.Popen], folder: Path) -> None:
    """Until all have ended; says every minute how far they are."""
    begin = told = time.monotonic()
    try:
        while any(process.poll() is None for process in processes):
            time.sleep(0.5)
            if time.monotonic() - told >= 60:
                told = time.monotonic()
                run = read_results(folder)
                print(f"{told - begin:5.0f} s: {len(run.results)} of {len(run.collected)} tests")
    finally:
        for process in processes:
            process.kill()


def main() -> int:
    """Run, tell, judge."""
    args = get_parser().parse_args()
    if args.processes < 1:
        raise ConformanceError(f"--processes must be 1 or more, got {args.processes}")
    version = importlib.metadata.version("timm")
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="timm-conformance-") as temporary:
        folder = Path(temporary)
        unpack_tests(args.sdist or fetch_sdist(version, folder), version, folder)
        processes = [start(shard, args, folder) for shard in range(args.processes)]
        wait(processes, folder)
        run = read_results(folder)
        for shard, process in enumerate(processes):
            # 5: no test for this process, which is what a small selection gives.
            if process.returncode not in (0, 5):
                print((folder / f"log-{shard}.txt").read_text())
    selected = [model for model in run.models.values() if model.selected]
    if not selected:
        known = ", ".join(sorted(run.models)) or "none (see above)"
        raise ConformanceError(f"no model matches {' '.join(args.models)}; registered: {known}")
    print(summary(run))
    if args.times:
        print(summary(run, by="model"))
    print(
        f"timm {run.versions['timm']}, torch {run.versions['torch']}: {len(selected)} of "
        f"{len(run.models)} models, {len(run.foreign)} functions of timm's are about timm's own, "
        f"{time.monotonic() - begin:.0f} s"
    )
    found = problems(run)
    found += [
        f"process {shard} ended with code {process.returncode}"
        for shard, process in enumerate(processes)
        if process.returncode not in (0, 1, 5)
    ]
    for problem in found:
        print("PROBLEM:", problem)
    print("FAILED" if found else "passed: every model, nothing left out unexplained")
    return 1 if found else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ConformanceError as error:
        print(f"{Path(sys.argv[0]).name}: error: {error}", file=sys.stderr)
        sys.exit(2)
