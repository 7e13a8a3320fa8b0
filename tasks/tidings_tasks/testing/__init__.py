"""Test jobs without a store and a worker: ``run_job`` runs one at once; ``InMemoryJobs`` holds many, with a clock in hand.

The jobs run with the contexts, the policy and the scripts of the real thing. For pytest, put this into the ``conftest.py``
at the root of the tests, and use the fixture ``tidings_jobs``::

    pytest_plugins = ["tidings_tasks.testing.plugin"]

It needs the library that runs the store's scripts: ``pip install 'tidings[testing]'``.
"""

from .files import SavedFile
from .job_run import JobRun
from .jobs import InMemoryJobs
from .lua import LuaMissing
from .runs import run_job, run_job_async
from .stopping import Moment

__all__ = ["InMemoryJobs", "JobRun", "LuaMissing", "Moment", "SavedFile", "run_job", "run_job_async"]
