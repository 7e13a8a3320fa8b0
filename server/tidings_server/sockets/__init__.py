"""Under the gateway: its connections, and the seams into python-socketio."""

from .connection import Connection, FeedWatch, JobWatch
from .wire import SocketServer, check_seams

__all__ = ["Connection", "FeedWatch", "JobWatch", "SocketServer", "check_seams"]
