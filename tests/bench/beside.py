#!/usr/bin/env python3
"""Times our kernels beside other implementations of attention, in one process on one GPU.

In:  the folder that `cargo xtask bundle` makes (this script, the launcher's library, artifacts), PyTorch and Triton;
     FlashAttention-3, if it is to take part, as a library or compressed library in the folder `--site`.
Out: OUT/<suite>.json, which `cargo xtask record` files, and a table. With `--variants all`: OUT/sweep-<suite>.json, every
     variant of every case with its predicted and measured time.

    python3 beside.py --suite forward --date 2026-01-31 --out OUT
    python3 beside.py --suite masks --peers flex,fa3 --only streaming --seconds 120
    python3 beside.py --suite forward --variants all --only "s4096 d128"

Every case is checked first against attention in float32. Then the implementations take turns, in an order that is
reversed every other round: `sustained` is the median of `do_bench`, which keeps the GPU busy and its clocks low; `burst`
is the median of a few launches after a pause. All see the same memory, [batch, position, head, feature].

A parent process starts a child for the GPU and starts it again after a crash or a hang, without what brought it down.
What has been measured is kept in OUT/<suite>.jsonl meanwhile, so that nothing is lost when time is up.
"""

import argparse
import contextlib
import ctypes
import datetime
import glob
import json
import lzma
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import time
import zipfile

HERE = pathlib.Path(__file__).resolve().parent
TOKENS, FEATURES = 16384, 2048
WINDOW, SINK, CAP, DOCUMENTS = 1024, 64, 30.0, 8
# Distance of a result from attention in float32, over the latter's norm, beyond which it is wrong.
ALLOWED = {"bf16": 1e-2, "f16": 2e-3}
HANG_SECONDS = 10.0
# Seconds that the parent grants a child that prints nothing: compilers of masks are slow.
SILENCE_SECONDS = 150.0


def cases(suite):
    """Cases in the order in which they are measured."""
    if suite == "forward":
        for d in (128, 64, 256):
            for causal in (True, False):
                for s in (16384, 8192, 4096, 2048, 1024, 512):
                    mask = "causal" if causal else "full"
                    yield case("causal" if causal else "dense", TOKENS // s, FEATURES // d, s, d, mask)
        return
    b, h, s, d = 2, 16, 8192, 128
    yield case("streaming", b, h, s, d, f"sink{SINK}+local{WINDOW}")
    yield case("window", b, h, s, d, f"sliding{WINDOW}")
    yield case("document", b, h, s, d, f"docs{DOCUMENTS}causal")
    yield case("alibi", b, h, s, d, "causal/alibi")
    yield case("softcap", b, h, s, d, f"causal/softcap{CAP:.0f}")
    yield case("gqa_causal", b, h, s, d, "causal gqa8", key_heads=h // 8)
    yield case("causal", b, h, s, d, "causal", dtype="f16")
    yield case("dense", b, h, s, d, "full", dtype="f16")


def case(spec, b, h, s, d, mask, dtype="bf16", key_heads=None):
    kind = "" if dtype == "bf16" else f" {dtype}"
    shape = f"b{b} h{h} s{s} d{d} {mask}{kind}"
    return dict(spec=spec, b=b, h=h, g=key_heads or h, s=s, d=d, mask=mask, dtype=dtype, shape=shape, key=f"{spec} {shape}")


class Ours:
    """The launcher's library."""

    def __init__(self, folder):
        lib = self.lib = ctypes.CDLL(str(folder / "libdrawloom_bench.so"))
        handle, text = ctypes.c_void_p, ctypes.c_char_p
        for name, result, arguments in (
            ("error", text, []),
            ("open", handle, [text]),
            ("variants", text, [handle, text]),
            ("prepare", handle, [handle, text]),
            ("launch", ctypes.c_int, [handle, handle]),
            ("release", None, [handle]),
            ("close", None, [handle]),
        ):
            function = getattr(lib, f"drawloom_{name}")
            function.restype, function.argtypes = result, arguments
        self.artifacts = {}
        for path in sorted((folder / "artifacts").glob("*.json")):
            opened = self.held(lib.drawloom_open(str(path).encode()))
            self.artifacts[json.loads(path.read_text())["name"]] = opened

    def held(self, result):
        if not result:
            raise RuntimeError(self.lib.drawloom_error().decode())
        return result

    def artifact(self, spec):
        if spec not in self.artifacts:
            raise RuntimeError(f"there is no artifact of `{spec}`")
        return self.artifacts[spec]

    def variants(self, spec, call):
        return json.loads(self.held(self.lib.drawloom_variants(self.artifact(spec), json.dumps(call).encode())))

    @contextlib.contextmanager
    def launcher(self, spec, call, stream):
        """A function that launches the call on a stream."""
        prepared = self.held(self.lib.drawloom_prepare(self.artifact(spec), json.dumps(call).encode()))
        launch = self.lib.drawloom_launch

        def run():
            if launch(prepared, stream):
                self.held(None)

        try:
            yield run
        finally:
            self.lib.drawloom_release(prepared)


def tensor(t):
    """A tensor as the library wants it described."""
    names = {"torch.bfloat16": "bf16", "torch.float16": "f16", "torch.float32": "f32", "torch.int32": "i32"}
    reached = 1 + sum((n - 1) * step for n, step in zip(t.shape, t.stride()))
    return dict(
        dtype=names[str(t.dtype)], address=t.data_ptr(), len=reached, shape=list(t.shape), strides=list(t.stride())
    )


class Problem:
    """The tensors of a case, and what it computes, said three times: for us, for the peers and for the reference."""

    def __init__(self, torch, c):
        self.torch, self.c = torch, c
        b, h, g, s, d = (c[n] for n in "bhgsd")
        dtype = {"bf16": torch.bfloat16, "f16": torch.float16}[c["dtype"]]
        generator = torch.Generator(device="cuda").manual_seed(hash_of(c["key"]))
        make = lambda heads: torch.randn(b, s, heads, d, device="cuda", dtype=dtype, generator=generator)
        # As stored, and as [batch, head, position, feature].
        self.stored = [make(h), make(g), make(g)]
        self.q, self.k, self.v = (t.transpose(1, 2) for t in self.stored)
        self.o = torch.full((b, s, h, d), float("nan"), device="cuda", dtype=dtype).transpose(1, 2)
        self.lse = torch.empty(b, h, s, device="cuda", dtype=torch.float32)
        self.scale = d**-0.5
        self.slope = torch.exp2(-8.0 * (torch.arange(h, device="cuda") + 1) / h).float()
        lengths = torch.arange(s, device="cuda", dtype=torch.int32) // (s // DOCUMENTS)
        self.doc = lengths.expand(b, s).contiguous()

    def call(self, variant=-1):
        tensors = dict(q=self.q, k=self.k, v=self.v, o=self.o, lse=self.lse)
        scalars = {}
        if self.c["spec"] == "alibi":
            tensors["slope"] = self.slope
        if self.c["spec"] == "document":
            tensors["doc"] = self.doc
        if self.c["spec"] == "softcap":
            scalars = dict(scale=self.scale, cap=CAP)
        return dict(tensors={n: tensor(t) for n, t in tensors.items()}, scalars=scalars, variant=variant)

    @property
    def causal(self):
        return self.c["spec"] != "dense"

    def mask(self):
        """Whether query i sees key j, for any integers or tensors of them; `None` where all do."""
        doc = self.doc[0]
        return {
            "dense": None,
            "streaming": lambda b, h, i, j: (i >= j) & ((j < SINK) | (i - j <= WINDOW)),
            "window": lambda b, h, i, j: (i >= j) & (i - j <= WINDOW),
            "document": lambda b, h, i, j: (i >= j) & (doc[i] == doc[j]),
        }.get(self.c["spec"], lambda b, h, i, j: i >= j)

    def score(self):
        """What is made of a scaled product; `None` where nothing is."""
        torch, slope = self.torch, self.slope
        return {
            "alibi": lambda x, b, h, i, j: x + slope[h] * (j - i),
            "softcap": lambda x, b, h, i, j: CAP * torch.tanh(x / CAP),
        }.get(self.c["spec"])

    def error(self, found):
        """Distance from attention in float32, over the latter's norm."""
        torch, c = self.torch, self.c
        off = norm = 0.0
        rows = max(1, min(c["s"], (1 << 28) // c["s"]))
        keys = torch.arange(c["s"], device="cuda")
        mask, score = self.mask(), self.score()
        for b in range(c["b"]):
            for h in range(c["h"]):
                group = h * c["g"] // c["h"]
                k, v = self.k[b, group].float(), self.v[b, group].float()
                for start in range(0, c["s"], rows):
                    queries = torch.arange(start, min(c["s"], start + rows), device="cuda")[:, None]
                    x = (self.q[b, h, start : start + rows].float() @ k.T) * self.scale
                    if score:
                        x = score(x, b, h, queries, keys)
                    if mask:
                        x.masked_fill_(~mask(b, h, queries, keys), float("-inf"))
                    wanted = torch.softmax(x, -1) @ v
                    off += (found[b, h, start : start + rows].float() - wanted).square().sum().double()
                    norm += wanted.square().sum().double()
        return float((off / norm).sqrt())


def hash_of(text):
    """A number that is the same in every process."""
    number = 1
    for letter in text.encode():
        number = (number * 31 + letter) % (1 << 31)
    return number


def library_of_fa3(torch, site):
    """FlashAttention-3's operators, from a library or an xz-compressed one in `site`, beside CUDA 12's runtime."""
    for wheel in glob.glob(f"{site}/**/nvidia_cuda_runtime*.whl", recursive=True):
        if not glob.glob(f"{site}/**/libcudart.so.12*", recursive=True):
            zipfile.ZipFile(wheel).extractall(f"{site}/cudart")
    for runtime in glob.glob(f"{site}/**/libcudart.so.12*", recursive=True):
        ctypes.CDLL(runtime, mode=ctypes.RTLD_GLOBAL)
    library = pathlib.Path(site) / "fa3.so"
    packed = sorted(pathlib.Path(site).glob("fa3*.so.xz"))
    if not library.exists() and packed:
        library.write_bytes(lzma.decompress(packed[0].read_bytes()))
    torch.ops.load_library(str(library))
    return torch.ops.flash_attn_3


class Peers:
    """Other implementations. Each method yields a function that computes the case, or `None` where it has no such row."""

    def __init__(self, torch, names, site):
        self.torch, self.names = torch, names
        self.fa3_operators = None
        if "fa3" in names:
            try:
                self.fa3_operators = library_of_fa3(torch, site)
            except Exception as error:
                print(f"# fa3 cannot be loaded: {short(error)}", flush=True)
        self.compiled = None

    def of(self, problem):
        """The functions of a case by name, each tried once and checked."""
        functions = {}
        for name in self.names:
            try:
                function = getattr(self, name.replace("-", "_"))(problem)
                if function is None:
                    continue
                result = function()
                wait(self.torch)
                result = result[0] if isinstance(result, (tuple, list)) else result
                if result.shape != problem.o.shape:
                    result = result.transpose(1, 2)
                off = problem.error(result)
                if not off < ALLOWED[problem.c["dtype"]]:
                    print(f"# {name}: {problem.c['key']}: another result, off by {off:.1e}", flush=True)
                    continue
                functions[name] = function
            except Exception as error:
                if "CUDA error" in str(error):
                    raise
                print(f"# {name}: {problem.c['key']}: {short(error)}", flush=True)
        return functions

    def fa3(self, p):
        left, right, cap = -1, -1, 0.0
        match p.c["spec"]:
            case "window":
                left, right = WINDOW, 0
            case "softcap":
                cap = CAP
            case "causal" | "dense" | "gqa_causal":
                pass
            case _:
                return None
        if self.fa3_operators is None:
            return None
        forward, (q, k, v) = self.fa3_operators.fwd, p.stored
        before, between = (None,) * 17, (None,) * 4
        after = (p.causal, left, right, 0, cap, True, None, 1, None, 0)
        return lambda: forward(q, k, v, *before, *between, *after)

    def torch_attention(self, p, backend):
        from torch.nn.attention import sdpa_kernel

        if p.c["spec"] not in ("causal", "dense", "gqa_causal"):
            return None
        attend, kernel = self.torch.nn.functional.scaled_dot_product_attention, sdpa_kernel

        def run():
            with kernel(backend):
                return attend(p.q, p.k, p.v, is_causal=p.causal, enable_gqa=p.c["g"] != p.c["h"])

        return run

    def cudnn(self, p):
        from torch.nn.attention import SDPBackend

        return self.torch_attention(p, SDPBackend.CUDNN_ATTENTION)

    def fa2_torch(self, p):
        from torch.nn.attention import SDPBackend

        return self.torch_attention(p, SDPBackend.FLASH_ATTENTION)

    def flex(self, p):
        from torch.nn.attention.flex_attention import create_block_mask, flex_attention

        if self.compiled is None:
            self.torch._dynamo.config.cache_size_limit = 200
            self.compiled = self.torch.compile(flex_attention, dynamic=False)
        s, mask = p.c["s"], p.mask()
        blocks = create_block_mask(mask, None, None, s, s, device="cuda") if mask else None
        options = dict(score_mod=p.score(), block_mask=blocks, enable_gqa=p.c["g"] != p.c["h"])
        return lambda: self.compiled(p.q, p.k, p.v, **options)


def short(error):
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0][:160] if str(error).strip() else ''}"


def wait(torch):
    """Waits for the GPU, not for ever: a kernel that hangs ends the process, and the parent goes on without it."""
    event = torch.cuda.Event()
    event.record()
    started = time.monotonic()
    while not event.query():
        if time.monotonic() - started > HANG_SECONDS:
            print("# a kernel hangs", flush=True)
            os._exit(3)
        time.sleep(0.0005)


def sustained(function):
    """Quartiles of a busy GPU."""
    from triton.testing import do_bench

    return do_bench(function, warmup=15, rep=60, quantiles=[0.25, 0.5, 0.75])


def burst(torch, function, times=3):
    """Times of a few launches after a pause."""
    torch.cuda.synchronize()
    time.sleep(0.12)
    function()
    events = [torch.cuda.Event(enable_timing=True) for _ in range(times + 1)]
    events[0].record()
    for event in events[1:]:
        function()
        event.record()
    torch.cuda.synchronize()
    return [start.elapsed_time(end) for start, end in zip(events, events[1:])]


def take_turns(torch, functions, rounds):
    """Sustained and burst figures of each function; the order is reversed every other round."""
    quartiles = {name: [] for name in functions}
    bursts = {name: [] for name in functions}
    for n in range(rounds):
        order = list(functions) if n % 2 == 0 else list(functions)[::-1]
        for name in order:
            bursts[name] += burst(torch, functions[name])
        for name in order:
            quartiles[name].append(sustained(functions[name]))
    figures = {}
    for name in functions:
        spread = statistics.median((high - low) / 2 / middle for low, middle, high in quartiles[name])
        figures[name] = dict(
            ms=statistics.median(middle for _, middle, _ in quartiles[name]),
            burst_ms=statistics.median(bursts[name]),
            spread=spread,
        )
    return figures


class Child:
    """Measures cases that are not in the log yet."""

    def __init__(self, options, log):
        import torch

        self.torch, self.options, self.log = torch, options, log
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.zeros(1, device="cuda")
        self.ours = Ours(options.bundle)
        self.peers = Peers(torch, options.peers if options.variants != "all" else [], options.site)
        self.stream = torch.cuda.current_stream().cuda_stream
        self.note(dict(machine=torch.cuda.get_device_name()))

    def note(self, entry):
        self.log.write(json.dumps(entry) + "\n")
        self.log.flush()
        os.fsync(self.log.fileno())

    def checked(self, problem, run):
        """Launches once on a poisoned output; the error, which is NaN where something is not written."""
        problem.o.fill_(float("nan"))
        run()
        wait(self.torch)
        return problem.error(problem.o)

    def base(self, c, listed):
        sizes = dict(b=c["b"], h=c["h"], i=c["s"], j=c["s"], d=c["d"])
        if c["spec"] == "gqa_causal":
            sizes["g"] = c["g"]
        return dict(
            spec=c["spec"], target=listed["target"], shape=c["shape"], dtype=c["dtype"], sizes=sizes,
            schedule=listed["name"], predicted_ms=listed["predicted_ms"],
        ) | {"pass": "fwd"}  # fmt: skip

    def measure(self, c):
        """The selector's variant beside the peers."""
        problem = Problem(self.torch, c)
        listed = next(v for v in self.ours.variants(c["spec"], problem.call()) if v["chosen"])
        with self.ours.launcher(c["spec"], problem.call(), self.stream) as run:
            error = self.checked(problem, run)
            row = self.base(c, listed) | dict(error=error)
            if not error < ALLOWED[c["dtype"]]:
                return row | dict(wrong=True)
            functions = {"ours": run} | self.peers.of(problem)
            figures = take_turns(self.torch, functions, self.options.rounds)
        ours = figures.pop("ours")
        return row | dict(
            ours_ms=ours["ms"], spread=ours["spread"], ours_burst_ms=ours["burst_ms"],
            peers={name: f["ms"] for name, f in figures.items()},
            peers_burst={name: f["burst_ms"] for name, f in figures.items()},
        )  # fmt: skip

    def sweep(self, c, done):
        """Every variant on its own, those of one case in turns of one round."""
        problem = Problem(self.torch, c)
        for listed in self.ours.variants(c["spec"], problem.call()):
            key = f"{c['key']} # {listed['index']}"
            if key in done or not self.time_left():
                continue
            row = self.base(c, listed) | {n: listed[n] for n in ("index", "splits", "workspace", "chosen")}
            self.note(dict(start=key))
            try:
                if listed["refused"]:
                    row |= dict(refused=listed["refused"])
                else:
                    call = problem.call(listed["index"])
                    with self.ours.launcher(c["spec"], call, self.stream) as run:
                        row |= dict(error=self.checked(problem, run))
                        row |= take_turns(self.torch, {"ours": run}, 1)["ours"]
                        row["wrong"] = not row["error"] < ALLOWED[c["dtype"]]
            except Exception as error:
                self.stop_if_broken(error)
                row |= dict(refused=short(error))
            self.note(dict(key=key, row=row))
            times = f"{row['ms']:8.4f} ms  burst {row['burst_ms']:8.4f}" if "ms" in row else row["refused"][:100]
            predicted = f"{row['predicted_ms']:8.4f}" if row["predicted_ms"] else "       -"
            mark = "*" if row["chosen"] else " "
            wrong = "  WRONG" if row.get("wrong") else ""
            print(f"{c['key']:44s} {mark} {row['target']:7s} {predicted} predicted {times}{wrong}  {row['schedule']}", flush=True)

    def stop_if_broken(self, error):
        """An error of the GPU spoils the context: the parent starts another child."""
        try:
            self.torch.cuda.synchronize()
        except Exception:
            print(f"# the context is broken: {short(error)}", flush=True)
            os._exit(4)

    def time_left(self):
        return time.time() < self.options.deadline

    def run(self, done):
        for c in cases(self.options.suite):
            if not self.time_left():
                print("# the time is up", flush=True)
                break
            if self.options.only and not all(word in c["key"] for word in self.options.only.split()):
                continue
            if self.options.variants == "all":
                self.sweep(c, done)
                continue
            if c["key"] in done:
                continue
            self.note(dict(start=c["key"]))
            try:
                row = self.measure(c)
                self.note(dict(key=c["key"], row=row))
                print(line(row), flush=True)
            except Exception as error:
                self.stop_if_broken(error)
                self.note(dict(key=c["key"], failed=short(error)))
                print(f"{c['key']}: FAILED {short(error)}", flush=True)
            self.torch.cuda.empty_cache()


def line(row):
    """A row for people: times, then ratios, more than 1 where we are faster."""
    head = f"{row['spec']:10s} {row['shape']:34s} {row['target']:7s} err {row['error']:.1e}"
    if "ours_ms" not in row:
        return f"{head} WRONG"
    text = f"{head} ours {row['ours_ms']:8.4f} ms ±{100 * row['spread']:4.1f}%"
    if row["predicted_ms"]:
        text += f" (predicted {row['predicted_ms']:7.4f})"
    for name, ms in row["peers"].items():
        text += f"  {name} {ms / row['ours_ms']:.3f}/{row['peers_burst'][name] / row['ours_burst_ms']:.3f}"
    return text


def read_log(path):
    """What a log says: rows by key, keys that were started and not ended, notes of failure, the machine."""
    rows, started, failed, machine = {}, [], {}, "unknown"
    for text in path.read_text().splitlines() if path.exists() else ():
        try:
            entry = json.loads(text)
        except ValueError:
            continue
        machine = entry.get("machine", machine)
        if "start" in entry:
            started.append(entry["start"])
        elif "row" in entry:
            rows[entry["key"]] = entry["row"]
        elif "failed" in entry:
            failed[entry["key"]] = entry["failed"]
    open_ones = [key for key in started if key not in rows and key not in failed]
    return rows, open_ones, failed, machine


def finish(options, log):
    """Writes the record and the table from the log; whether every row was right."""
    rows, _, failed, machine = read_log(log)
    commit = options.bundle / "commit"
    record = dict(
        date=options.date,
        machine=options.machine or machine,
        commit=commit.read_text().strip() if commit.exists() else "unknown",
        suite=options.suite,
    )
    sweep = options.variants == "all"
    right = [row for row in rows.values() if sweep or "ours_ms" in row]
    path = options.out / f"{'sweep-' if sweep else ''}{options.suite}.json"
    path.write_text(json.dumps(record | dict(rows=right), indent=1) + "\n")
    print(f"\n# wrote {path}: {len(right)} rows; {len(rows) - len(right)} wrong, {len(failed)} failed")
    for key, why in failed.items():
        print(f"# {key}: {why}")
    if not sweep:
        print("# peer columns: its time over ours, sustained/burst; more than 1 is a win")
        for row in rows.values():
            print(line(row))
        for name in sorted({name for row in right for name in row["peers"]}):
            of = [row for row in right if name in row["peers"]]
            mean = statistics.geometric_mean(row["peers"][name] / row["ours_ms"] for row in of)
            burst_mean = statistics.geometric_mean(row["peers_burst"][name] / row["ours_burst_ms"] for row in of)
            wins = sum(row["peers"][name] > row["ours_ms"] for row in of)
            print(f"# {name}: {mean:.3f} sustained, {burst_mean:.3f} burst over {len(of)} rows, {wins} wins")
    sys.stdout.flush()
    return not failed and all(not row.get("wrong") for row in rows.values())


def parent(options, arguments):
    """Runs children until one ends by itself or the time is up."""
    log = options.out / f"{'sweep-' if options.variants == 'all' else ''}{options.suite}.jsonl"
    options.out.mkdir(parents=True, exist_ok=True)
    if not options.resume:
        log.unlink(missing_ok=True)
    child = None

    def stop(*_):
        if child:
            child.kill()
        finish(options, log)
        os._exit(1)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    restarts = 0
    while time.time() < options.deadline and restarts < 12:
        environment = dict(os.environ, DRAWLOOM_CHILD=str(log), DRAWLOOM_DEADLINE=str(options.deadline))
        child = subprocess.Popen([sys.executable, "-u", __file__, *arguments], env=environment)
        grown, since = -1, time.time()
        while child.poll() is None:
            time.sleep(0.2)
            size = log.stat().st_size if log.exists() else 0
            if size != grown:
                grown, since = size, time.time()
            late = time.time() > options.deadline + 30
            if late or time.time() - since > SILENCE_SECONDS:
                print("# the child is late and is stopped" if late else "# the child is stuck and is stopped", flush=True)
                child.kill()
                child.wait()
        if child.returncode == 0:
            break
        restarts += 1
        _, open_ones, _, _ = read_log(log)
        if not open_ones:
            # It could not even begin.
            print(f"# the child ended with {child.returncode} before its first case", flush=True)
            break
        with log.open("a") as file:
            for key in open_ones:
                print(f"# {key}: ended with {child.returncode}", flush=True)
                file.write(json.dumps(dict(key=key, failed=f"the process ended with {child.returncode}")) + "\n")
    return finish(options, log)


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--suite", choices=("forward", "masks"), default="forward")
    add("--only", default="", help="words that a case's name must all have: `causal s4096 d128`")
    add("--variants", choices=("chosen", "all"), default="chosen", help="the selector's, beside the peers; or all, alone")
    add("--peers", help="of fa3,cudnn,fa2-torch,flex; by default fa3,cudnn for forward and all but fa2-torch for masks")
    add("--rounds", type=int, default=3, help="times that each implementation has its turn")
    add("--seconds", type=float, default=300.0, help="after which no case is begun")
    add("--date", default=datetime.date.today().isoformat())
    add("--machine", help="what the GPU is called in the record; the driver's name by default")
    add("--bundle", type=pathlib.Path, default=HERE, help="the folder with the library and the artifacts")
    add("--site", default=os.environ.get("PEERS_SITE", str(HERE / "site")), help="the folder with FlashAttention-3")
    add("--out", type=pathlib.Path, default=pathlib.Path(os.environ.get("OUT", ".")))
    add("--resume", action="store_true", help="go on with the log that is there")
    add("--list", action="store_true", help="print the cases and end")
    options = parser.parse_args(arguments)
    default = "fa3,cudnn" if options.suite == "forward" else "fa3,cudnn,flex"
    options.peers = [name for name in (default if options.peers is None else options.peers).split(",") if name]
    options.deadline = float(os.environ.get("DRAWLOOM_DEADLINE", time.time() + options.seconds))
    return options


def main(arguments):
    options = parse(arguments)
    if options.list:
        for c in cases(options.suite):
            print(c["key"])
        return 0
    log = os.environ.get("DRAWLOOM_CHILD")
    if log is None:
        return 0 if parent(options, arguments) else 1
    rows, _, failed, _ = read_log(pathlib.Path(log))
    with open(log, "a") as file:
        Child(options, file).run(set(rows) | set(failed))
    sys.stdout.flush()
    # Libraries that were loaded by hand may fail at exit; all is written.
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
