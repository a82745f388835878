"""All parts of the REST interface, in the order of its page."""

from perijove_hub.api import (
    actions,
    audit,
    events,
    files,
    jobs,
    listing,
    logs,
    nodes,
    policies,
    records,
    site,
    store,
    usage,
    why,
    workflow_actions,
    workflow_events,
    workflows,
)

PARTS = (
    jobs.router,
    listing.router,
    why.router,
    actions.router,
    logs.router,
    files.router,
    store.router,
    records.router,
    events.router,
    workflows.router,
    workflow_actions.router,
    workflow_events.router,
    usage.router,
    nodes.router,
    policies.router,
    audit.router,
    site.router,
    site.public,
)
"""What the application answers under ``/api/v1``."""
