"""Work as CUDA graphs: recorded once for each size, launched as one. The kernels are those of the plain call.

A step of drawing or training is thousands of kernels; where one takes less time than its launch by the host, the device
waits.
"""

import gc
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

log = logging.getLogger(__name__)

WARM_UPS = 2  # the first call fills what is kept between calls, the second shows that it stays there


class Recording:
    """function(*inputs) as a CUDA graph, for inputs with the shapes and types of `sample`, which stay as they are.

    What it returns is overwritten by the next call. pool: of memory, shared with recordings that never run at the same
    time. stream: a torch.cuda.Stream to record on.
    """

    def __init__(self, function: Callable[..., Any], sample: Sequence[Tensor], pool: Any, stream: Any):
        self.inputs = [tensor.clone() for tensor in sample]
        with on(stream):
            for _ in range(WARM_UPS):
                function(*self.inputs)
        self.graph = torch.cuda.CUDAGraph()
        # thread_local: the threads that load data go on meanwhile, and pin memory
        with no_collection(), torch.cuda.graph(self.graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
            self.outputs = function(*self.inputs)

    def __call__(self, *inputs: Tensor) -> Any:
        for place, tensor in zip(self.inputs, inputs, strict=True):
            place.copy_(tensor, non_blocking=True)
        self.graph.replay()
        return self.outputs


@contextmanager
def on(stream: Any) -> Iterator[None]:
    """Inside, work goes to the stream: after what was asked for before, and before what is asked for later."""
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        yield
    torch.cuda.current_stream().wait_stream(stream)


@contextmanager
def no_collection() -> Iterator[None]:
    """Inside, Python collects no garbage: a recording that is destroyed while another one is made ends it."""
    on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if on:
            gc.enable()


@contextmanager
def replayed(modules: Iterable[nn.Module], device: torch.device) -> Iterator[None]:
    """Inside, each module's forward pass without gradients runs plainly the first time that it sees inputs of a kind
    (sizes, types, everything that is no tensor), is recorded the second time, and launched as one from then on. On a
    CPU nothing changes.

    The modules are of one class and run one after another: they share memory for inputs and results.
    """
    if device.type != "cuda":
        yield
        return
    shared = Shared(Graphs(), device)
    modules = list(modules)
    own = [vars(module).get("forward") for module in modules]
    calls = [Replayed(module.forward, shared) for module in modules]
    for module, call in zip(modules, calls, strict=True):
        vars(module)["forward"] = call
    try:
        yield
    finally:
        for module, forward in zip(modules, own, strict=True):
            del vars(module)["forward"]
            vars(module).update({} if forward is None else {"forward": forward})
        for kept in (shared.places, *(call.recordings for call in calls)):
            kept.clear()  # now: diffusers' hooks keep the calls in cycles


class Graphs:
    """Records work without inputs and results, which reads and writes what stays in its place. All recordings share
    memory, which lives as long as they do.
    """

    stream: Any = None  # one for all: each has workspaces of its own

    def __init__(self) -> None:
        self.pool = torch.cuda.graph_pool_handle()
        self.begun = False

    def aside(self) -> AbstractContextManager[None]:
        """On the stream for recordings, which have to be made on another one than the usual."""
        Graphs.stream = Graphs.stream or torch.cuda.Stream()
        return on(Graphs.stream)

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """Gives what launches the work. Raises RuntimeError if it cannot be recorded."""
        graph = torch.cuda.CUDAGraph()
        if not self.begun:
            torch.cuda.empty_cache()  # the memory of earlier recordings, and of the plain pass: a capture frees none
        self.begun = True
        with no_collection(), self.aside():
            graph.capture_begin(pool=self.pool, capture_error_mode="thread_local")
            try:
                work()
            finally:
                graph.capture_end()
        return graph.replay


Size = tuple[torch.Size, torch.dtype]


class Shared:
    """Memory for inputs and results of several recordings. graphs: Graphs, or what stands for them."""

    def __init__(self, graphs: Any, device: torch.device):
        self.graphs, self.device, self.broken = graphs, device, False
        self.places: dict[Any, list[Tensor]] = {}

    def at(self, name: str, sizes: Sequence[Size]) -> list[Tensor]:
        """Places for tensors of these sizes, the same ones every time."""
        key = name, tuple(sizes)
        if key not in self.places:
            self.places[key] = [torch.empty(shape, dtype=dtype, device=self.device) for shape, dtype in sizes]
        return self.places[key]

    def fail(self, error: RuntimeError) -> None:
        """From now on all calls are plain: a recording that failed may leave others unusable."""
        self.broken = True
        why = str(error.__context__ or error).strip() or type(error).__name__
        log.warning("launched kernel by kernel, which is slower: recording failed: %s", why.splitlines()[0])


class Replayed:
    """call(*args, **options), see `replayed`."""

    def __init__(self, call: Callable[..., Any], shared: Shared):
        self.call, self.shared = call, shared
        self.known: dict[Any, tuple[Sequence[Size], Any]] = {}  # kind of inputs -> sizes and form of the results
        self.recordings: dict[Any, Callable[[], None]] = {}

    def __call__(self, *args: Any, **options: Any) -> Any:
        leaves, form = tree_flatten((args, options))
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        kind = str(form), str(["a tensor" if isinstance(x, Tensor) else repr(x) for x in leaves]), sizes_of(tensors)
        if torch.is_grad_enabled() or self.shared.broken:
            return self.call(*args, **options)
        inputs = self.shared.at("in", kind[2])
        for place, tensor in zip(inputs, tensors, strict=True):
            place.copy_(tensor)
        computed = partial(self._computed, inputs, leaves, form)
        if kind not in self.known:
            with self.shared.graphs.aside():
                results, out_form = tree_flatten(computed())  # from the places: nothing is compiled while recording
                results = [result.clone() for result in results]
            self.known[kind] = sizes_of(results), out_form
            return tree_unflatten(results, out_form)
        sizes, out_form = self.known[kind]
        outputs = self.shared.at("out", sizes)
        if kind not in self.recordings:

            def work() -> None:
                for place, result in zip(outputs, tree_flatten(computed())[0], strict=True):
                    place.copy_(result)

            try:
                self.recordings[kind] = self.shared.graphs.record(work)
            except RuntimeError as error:
                self.shared.fail(error)
                return self.call(*args, **options)
        self.recordings[kind]()
        return tree_unflatten([place.clone() for place in outputs], out_form)

    def _computed(self, inputs: Sequence[Tensor], leaves: Sequence[Any], form: Any) -> Any:
        left = iter(inputs)
        args, options = tree_unflatten([next(left) if isinstance(x, Tensor) else x for x in leaves], form)
        return self.call(*args, **options)


def sizes_of(tensors: Sequence[Tensor]) -> tuple[Size, ...]:
    return tuple((tensor.shape, tensor.dtype) for tensor in tensors)
