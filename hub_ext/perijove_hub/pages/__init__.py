"""The pages for people: queue, one job, workflows, usage, fair share, nodes; and the browser's login."""

from perijove_hub.pages import account, dask, device, job, nodes, queue, session, usage, workflow, workflows

PAGES = (
    session.router,
    queue.router,
    job.router,
    workflows.router,
    workflow.router,
    usage.router,
    nodes.router,
    dask.router,
    account.router,
    device.router,
)
"""What the application shows to browsers."""
