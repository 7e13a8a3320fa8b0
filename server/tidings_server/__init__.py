"""The server: REST and Socket.IO in front of the job store. ``app.build_app`` makes it."""
