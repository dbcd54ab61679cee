//! `/rvmm/metrics`, for Prometheus, and `/rvmm/metrics.json`: what the VM counts.

use vmm::controller::{Request, Response};
use vmm::metrics::prometheus;

use crate::reply::Reply;
use crate::routes::Call;

pub(crate) fn get_text() -> Call {
    Call::Ask(Request::GetMetrics, |response| match response {
        Response::Metrics(metrics) => {
            Reply::text(prometheus::CONTENT_TYPE, metrics.counters.to_prometheus(&metrics.id))
        }
        other => Reply::unexpected(&other),
    })
}

pub(crate) fn get_json() -> Call {
    Call::Ask(Request::GetMetrics, |response| match response {
        Response::Metrics(metrics) => Reply::json(&metrics.counters.to_json()),
        other => Reply::unexpected(&other),
    })
}
