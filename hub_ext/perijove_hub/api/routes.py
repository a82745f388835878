"""All parts of the REST interface, in the order of its page."""

from fastapi.routing import APIRoute

from perijove_hub.api import (
    actions,
    announcements,
    arrivals,
    audit,
    device,
    events,
    files,
    images,
    invitations,
    jobs,
    joining,
    keys,
    listing,
    logs,
    nodes,
    policies,
    projects,
    records,
    secrets,
    site,
    store,
    tokens,
    usage,
    users,
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
    secrets.router,
    records.router,
    events.router,
    workflows.router,
    workflow_actions.router,
    workflow_events.router,
    usage.router,
    nodes.router,
    joining.router,
    joining.public,
    policies.router,
    projects.router,
    images.router,
    audit.router,
    arrivals.router,
    users.router,
    invitations.router,
    announcements.router,
    announcements.public,
    tokens.router,
    keys.router,
    device.router,
    site.router,
    site.public,
)
"""What the application answers under ``/api/v1``."""


def methods_at(path: str) -> list[str]:
    """The methods of the resource at `path`, which is what follows ``/api/v1``."""
    routes = (route for part in PARTS for route in part.routes if isinstance(route, APIRoute))
    return sorted(
        {method for route in routes if route.path_regex.match(path) for method in route.methods or ()}
    )
