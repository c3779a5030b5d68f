//! Every path the front serves, in one table; a request for anything else is refused with 404.

use transport::{AUTH_PATH, CHARTERS_PATH, EDGE_PATH};

/// What a route asks of whoever comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gate {
    /// Nothing: what is served proves itself and is the same for all.
    Open,
    /// conn_auth, which names the action.
    Action,
    /// Nothing, and nothing is served but TLS once more, with these routes inside it but for this one.
    Inner,
}

/// One route.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Route {
    /// The path, without a query.
    pub(crate) path: &'static str,
    /// Who is let in.
    pub(crate) gate: Gate,
}

/// All of them.
pub(crate) const ROUTES: &[Route] = &[
    Route { path: AUTH_PATH, gate: Gate::Action },
    Route { path: CHARTERS_PATH, gate: Gate::Open },
    Route { path: EDGE_PATH, gate: Gate::Inner },
];

/// The route of a request's target; a query belongs to an open route only.
pub(crate) fn route(target: &str) -> Option<Route> {
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    let found = ROUTES.iter().copied().find(|route| route.path == path)?;
    (query.is_none() || found.gate == Gate::Open).then_some(found)
}
