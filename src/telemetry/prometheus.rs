//! Metrics: the recorder behind the `metrics` macros, and what `GET /metrics` shows.

use std::sync::{Mutex, PoisonError};

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use super::names::{Kind, METRICS};

/// What has been measured since the process started. Cheap to clone.
#[derive(Clone)]
pub struct Metrics(PrometheusHandle);

/// The process already has a recorder, or the buckets are unusable.
#[derive(Debug, thiserror::Error)]
#[error("metrics cannot be recorded: {0}")]
pub struct MetricsError(String);

impl Metrics {
    /// Makes the process's metrics go here, before anything is measured. A second server in the same
    /// process shares the first one's: the `metrics` macros know one recorder.
    ///
    /// # Errors
    /// When somebody else has put a recorder there.
    pub fn install() -> Result<Self, MetricsError> {
        let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(metrics) = &*installed {
            return Ok(metrics.clone());
        }
        let recorder = recorder()?;
        let metrics = Self(recorder.handle());
        metrics::set_global_recorder(recorder).map_err(|error| MetricsError(error.to_string()))?;
        describe();
        Ok(installed.insert(metrics).clone())
    }

    /// The text for `GET /metrics` (Prometheus exposition format 0.0.4).
    pub fn render(&self) -> String {
        self.0.render()
    }

    /// Folds recent samples into their histograms, which else grow until the next [`render`](Self::render).
    /// Call it every few seconds.
    pub fn upkeep(&self) {
        self.0.run_upkeep();
    }
}

fn recorder() -> Result<PrometheusRecorder, MetricsError> {
    let unusable = |error: metrics_exporter_prometheus::BuildError| MetricsError(error.to_string());
    let builder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS)
        .map_err(unusable)?
        .set_buckets_for_metric(Matcher::Suffix("_ms".into()), &MILLISECONDS)
        .map_err(unusable)?
        .set_buckets_for_metric(Matcher::Suffix("_mos".into()), &MOS)
        .map_err(unusable)?
        .set_buckets_for_metric(Matcher::Suffix("_events".into()), &COUNTS)
        .map_err(unusable)?;
    Ok(builder.build_recorder())
}

fn describe() {
    for metric in METRICS {
        match metric.kind {
            Kind::Counter => metrics::describe_counter!(metric.name, metric.help),
            Kind::Gauge => metrics::describe_gauge!(metric.name, metric.help),
            Kind::Histogram => metrics::describe_histogram!(metric.name, metric.help),
        }
    }
}

static INSTALLED: Mutex<Option<Metrics>> = Mutex::new(None);

/// From a tenth of a frame's millisecond to a long connect.
const SECONDS: [f64; 16] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 30.0];
const MILLISECONDS: [f64; 14] =
    [0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 250.0, 1_000.0, 5_000.0, 30_000.0];
/// Unusable, poor, fair, good, and what G.711 and wideband reach.
const MOS: [f64; 8] = [1.0, 2.0, 2.6, 3.1, 3.6, 4.0, 4.3, 4.5];
const COUNTS: [f64; 8] = [1.0, 2.0, 5.0, 10.0, 50.0, 100.0, 500.0, 1_000.0];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_measured_is_shown() {
        let recorder = recorder().expect("good buckets");
        let shown = Metrics(recorder.handle());
        metrics::with_local_recorder(&recorder, || {
            describe();
            metrics::counter!("tandem_log_lines_dropped_total").increment(2);
            metrics::histogram!("tandem_provider_connect_seconds").record(0.02);
        });
        let text = shown.render();
        assert!(text.contains("# HELP tandem_log_lines_dropped_total "), "{text}");
        assert!(text.contains("tandem_log_lines_dropped_total 2"), "{text}");
        assert!(text.contains("tandem_provider_connect_seconds_bucket{le=\"0.02\"} 1"), "{text}");
    }
}
