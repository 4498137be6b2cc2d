"""Many processes, one training run: torchrun starts them, one for each device, and each runs all of train.py.

    torchrun --standalone --nproc_per_node 8 train.py --parallel ddp      eight GPUs of one machine

Every process draws batches of its own, and the gradients are averaged over all of them before each step. So
the processes hold the same weights all the time, and the run is, up to rounding, the one that a single
process would make with all those batches. There are two ways to hold the weights (the knob `parallel`):

    ddp     each process has all of them (distributed data parallel)
    fsdp    each has a part of every matrix, with its part of the gradient and of the optimizer's state, and
            a block's whole matrices exist only while it computes (fully sharded data parallel)

Started without torchrun, a process is alone, and nothing in here changes anything. Everything of this
project that knows about several processes is in this file, in utils/muon.py where a matrix has to be whole,
and in the lines of train.py that call this file.

Papers
    DDP, Li et al. 2020, https://arxiv.org/abs/2006.15704
    FSDP, Zhao et al. 2023, https://arxiv.org/abs/2304.11277; without a server for the parameters, it is
        ZeRO's third stage, Rajbhandari et al. 2020, https://arxiv.org/abs/1910.02054
"""
from config import BadInput

import contextlib
import os
import time

import torch
import torch.distributed as dist

MARK = "torchrun-id.txt"


def rank():
    """The number of this process, from 0. The first one prints and writes files for all."""
    return int(os.environ.get("RANK", 0))


def world_size():
    """How many processes train together."""
    return int(os.environ.get("WORLD_SIZE", 1))


def is_first():
    return rank() == 0


def restarts():
    """How often torchrun (--max-restarts) has started the run again, after a process had died."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0))


def run_id():
    """What torchrun calls this run, also after it has started it again; "" without torchrun."""
    return os.environ.get("TORCHELASTIC_RUN_ID", "")


def mark(folder):
    """Notes in a run's folder that what is written there from now on is this run's."""
    if run_id():
        (folder / MARK).write_text(run_id())


def is_marked(folder):
    """Whether the folder holds what this run has written."""
    path = folder / MARK
    return path.exists() and path.read_text() == run_id()


def connect(device):
    """Joins the processes that torchrun has started, each with a GPU of its own if they train on GPUs.

    Raises BadInput where a machine has fewer GPUs than processes."""
    if world_size() == 1:
        return
    if device.type == "cuda":
        local_rank = int(os.environ["LOCAL_RANK"])
        if local_rank >= torch.cuda.device_count():
            have = f"this machine has {torch.cuda.device_count()}; lower --nproc_per_node"
            raise BadInput(f"process {local_rank + 1} of this machine finds no GPU: {have}")
        torch.cuda.set_device(local_rank)

    # In the store, processes leave their addresses for each other. torchrun keeps it when it starts them
    # again, and what the dead ones have left there must not be found.
    store, _, _ = next(dist.rendezvous("env://"))
    store = dist.PrefixStore(f"start {restarts()}", store)
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=rank(), world_size=world_size())


def disconnect():
    """Leaves the others in order; NCCL complains otherwise."""
    if dist.is_initialized():
        dist.destroy_process_group()


def wrap(network, parallel, blocks=()):
    """network → what training calls in its place, so that gradients are averaged over the processes.

    parallel: ddp | fsdp. With fsdp the network's own parameters become parts (DTensor), so optimizers have
    to be made after this; blocks: the layers whose matrices are gathered one after the other."""
    if world_size() == 1:
        return network
    if parallel == "ddp":
        return torch.nn.parallel.DistributedDataParallel(network)

    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    device_type = next(network.parameters()).device.type
    mesh = init_device_mesh(device_type, (world_size(),))
    for module in [*blocks, network]:
        fully_shard(module, mesh=mesh)
        # gloo, which connects CPUs, can add up but not average; FSDP divides instead.
        module.set_force_sum_reduction_for_comms(device_type == "cpu")
    return network


@contextlib.contextmanager
def sharing_gradients(engine, now):
    """While this lasts, a backward pass averages the gradients over the processes only if `now` is true.

    Where a process has several batches a step, their gradients add up first, and are averaged once. (Until
    then, fsdp keeps whole gradients.) engine: what wrap returned."""
    if hasattr(engine, "set_requires_gradient_sync"):
        engine.set_requires_gradient_sync(now)
    if hasattr(engine, "no_sync") and not now:
        with engine.no_sync():
            yield
    else:
        yield


def whole(tensor):
    """A tensor of which each process has a part → all of it. Every process has to call this."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def part_like(tensor, parameter):
    """A whole tensor of a parameter's shape → this process's part of it, cut as the parameter is."""
    if not hasattr(parameter, "full_tensor"):
        return tensor

    from torch.distributed.tensor import DTensor, Replicate

    mesh = parameter.device_mesh
    everywhere = DTensor.from_local(tensor, mesh, [Replicate()], run_check=False)
    return everywhere.redistribute(mesh, parameter.placements)


def whole_state(state):
    """A state_dict, or lists and dicts of such → the same with whole tensors. Every process has to call this.

    Of tensors in parts only the first process, which writes the file, keeps the whole ones, in the memory of
    its CPU; so no GPU has to hold more than one of them at a time."""
    if isinstance(state, dict):
        return {key: whole_state(value) for key, value in state.items()}
    if isinstance(state, list):
        return [whole_state(value) for value in state]
    if not hasattr(state, "full_tensor"):
        return state
    tensor = whole(state)
    return tensor.cpu() if is_first() else None


def load_weights(network, weights):
    """network.load_state_dict, also where the network's parameters are parts. weights: whole tensors."""
    parts = {}
    for name, parameter in network.state_dict().items():
        if name in weights and weights[name].shape == parameter.shape:
            parts[name] = part_like(weights[name].to(parameter), parameter)
    # What is missing or does not fit is for load_state_dict to complain about.
    network.load_state_dict(weights | parts)


def load_optimizer(optimizer, saved):
    """optimizer.load_state_dict, also where its parameters are parts."""
    optimizer.load_state_dict(saved)
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if torch.is_tensor(value) and value.shape == parameter.shape:
                state[name] = part_like(value, parameter)


def mean(number):
    """The mean of a number over the processes. Every process has to call this."""
    if world_size() == 1:
        return number
    return total([number])[0] / world_size()


def any_of(*flags):
    """For each flag, whether it is set in any process. Every process has to call this."""
    if world_size() == 1:
        return flags
    return [count > 0 for count in total([float(flag) for flag in flags])]


def total(numbers):
    """The sums of numbers over the processes. Every process has to call this."""
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    summed = torch.tensor(numbers, dtype=torch.float64, device=device)
    dist.all_reduce(summed)
    return summed.tolist()


def of_the_first(value):
    """What the first process has. Every process has to call this."""
    values = [value]
    if world_size() > 1:
        dist.broadcast_object_list(values)
    return values[0]


def let_the_first_speak():
    """Most mistakes are found by all processes at once. The others wait a moment before they say so too: if
    the first has the same to say, torchrun ends them meanwhile."""
    if not is_first():
        time.sleep(2)


def check_batches(batches_per_step):
    """Raises BadInput if the processes cannot share a step's batches out evenly."""
    if batches_per_step % world_size():
        count = world_size()
        expected = f"expected a multiple of {count}, since {count} processes share them out"
        raise BadInput(f"batches_per_step = {batches_per_step}: {expected}")


def launcher():
    """The words before train.py that started as many processes."""
    if world_size() == 1:
        return ["python"]
    if world_size() != int(os.environ["LOCAL_WORLD_SIZE"]):
        return ["torchrun", "..."]  # several machines: as before
    return ["torchrun", "--standalone", "--nproc_per_node", os.environ["LOCAL_WORLD_SIZE"]]


def wait_for_all():
    """Goes on when every process has come here."""
    if world_size() > 1:
        dist.barrier()
