"""The pages for people: queue, one job, usage, fair share, nodes; and the browser's login."""

from perijove_hub.pages import dask, job, nodes, queue, session, usage

PAGES = (session.router, queue.router, job.router, usage.router, nodes.router, dask.router)
"""What the application shows to browsers."""
