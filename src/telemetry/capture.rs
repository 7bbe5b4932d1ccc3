//! Captures log events, for tests that prove what is not in them.

use std::fmt::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use tracing::field::{Field, Visit};
use tracing::span;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

/// Everything that was logged, at every level.
#[derive(Debug, Clone, Default)]
pub struct Captured(Arc<Mutex<Vec<CapturedEvent>>>);

/// One event with all its values, and those of the spans around it.
#[derive(Debug, Clone)]
pub struct CapturedEvent {
    /// How important it was.
    pub level: Level,
    /// Module it came from.
    pub target: String,
    /// Spans from the outside in, message and fields.
    pub text: String,
}

impl Captured {
    /// What was logged so far.
    pub fn events(&self) -> Vec<CapturedEvent> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Events at `level` or more important whose text, or that of a span around them, contains `needle`.
    pub fn mentions(&self, level: Level, needle: &str) -> Vec<CapturedEvent> {
        let needle = needle.to_lowercase();
        let told =
            |event: &CapturedEvent| event.level <= level && event.text.to_lowercase().contains(&needle);
        self.events().into_iter().filter(told).collect()
    }
}

/// Makes the whole process log into the returned list, and nowhere else. Once per process.
///
/// # Errors
/// When the process has a subscriber already.
pub fn install() -> Result<Captured, tracing::subscriber::SetGlobalDefaultError> {
    let captured = Captured::default();
    let subscriber = tracing_subscriber::registry().with(CaptureLayer(captured.clone()));
    tracing::subscriber::set_global_default(subscriber)?;
    Ok(captured)
}

/// Feeds a [`Captured`]; for a registry that has other layers too.
pub fn layer() -> (CaptureLayer, Captured) {
    let captured = Captured::default();
    (CaptureLayer(captured.clone()), captured)
}

/// A `tracing` layer that keeps every event.
#[derive(Debug, Clone)]
pub struct CaptureLayer(Captured);

struct SpanText(String);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for CaptureLayer {
    fn on_new_span(&self, attributes: &span::Attributes<'_>, id: &span::Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut text = Text(format!("{}:", span.name()));
        attributes.record(&mut text);
        span.extensions_mut().insert(SpanText(text.0));
    }

    fn on_record(&self, id: &span::Id, values: &span::Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut text = Text::default();
        values.record(&mut text);
        if let Some(known) = span.extensions_mut().get_mut::<SpanText>() {
            known.0.push_str(&text.0);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut text = Text::default();
        for span in context.event_scope(event).into_iter().flat_map(|scope| scope.from_root()) {
            if let Some(known) = span.extensions().get::<SpanText>() {
                text.0.push_str(&known.0);
                text.0.push(' ');
            }
        }
        event.record(&mut text);
        let (level, target) = (*event.metadata().level(), event.metadata().target().to_owned());
        let entry = CapturedEvent { level, target, text: text.0 };
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
    }
}

#[derive(Default)]
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing into a String cannot fail.
        let _ = write!(self.0, " {}={value:?}", field.name());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let _ = write!(self.0, " {}={value}", field.name());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Pii;

    #[test]
    fn values_of_events_and_their_spans_are_seen() {
        let (layer, captured) = layer();
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, || {
            let span = tracing::info_span!("call", from = "+15550100", late = tracing::field::Empty);
            let _entered = span.enter();
            span.record("late", "hello there");
            tracing::info!(to = %Pii("+15550123"), "ringing");
            tracing::debug!("the caller said Good Morning");
        });
        assert_eq!(captured.mentions(Level::INFO, "+15550100").len(), 1);
        assert_eq!(captured.mentions(Level::INFO, "Hello There").len(), 1);
        assert_eq!(captured.mentions(Level::INFO, "5550123").len(), 0);
        assert_eq!(captured.mentions(Level::INFO, "good morning").len(), 0);
        assert_eq!(captured.mentions(Level::DEBUG, "good morning").len(), 1);
    }
}
