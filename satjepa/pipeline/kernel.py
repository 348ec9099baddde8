"""The Jupyter kernel of this very interpreter, whatever kernels are registered on the machine."""

import sys
from functools import cache


@cache
def own_kernel_manager() -> type:
    """A kernel manager class, for nbclient, whose kernel is run by `sys.executable`.

    Jupyter finds a kernel by its name in folders that variables and users choose (JUPYTER_PATH,
    ~/.local/share/jupyter), where "python3" may be any Python. This one asks none of them.
    """
    from ipykernel.kernelspec import get_kernel_dict
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager

    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]

    class OwnKernelManager(AsyncKernelManager):
        """Starts `python -m ipykernel_launcher` with the interpreter of this process."""

        @property
        def kernel_spec(self) -> KernelSpec:
            """The one kernel there is."""
            return KernelSpec(**get_kernel_dict() | {"argv": command})

    return OwnKernelManager
