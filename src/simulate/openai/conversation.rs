//! The conversation: its items in order, what they cost, and what may be done to them.

use serde_json::Value;

use super::error::ApiError;
use super::item::{Item, ItemKind, Part, Role};
use super::tokens::Tokens;

/// What a truncation did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Truncated {
    /// Audio the item had before.
    pub generated_ms: u64,
}

/// All items, oldest first.
#[derive(Debug, Default)]
pub struct Conversation {
    items: Vec<Item>,
}

impl Conversation {
    /// The newest item's id.
    pub fn last_id(&self) -> Option<&str> {
        self.items.last().map(|item| item.id.as_str())
    }

    /// The item with this id.
    pub fn get(&self, id: &str) -> Option<&Item> {
        self.items.iter().rev().find(|item| item.id == id)
    }

    /// The item with this id, to be changed.
    pub fn get_mut(&mut self, id: &str) -> Option<&mut Item> {
        self.items.iter_mut().rev().find(|item| item.id == id)
    }

    /// All items, oldest first.
    pub fn items(&self) -> &[Item] {
        &self.items
    }

    /// Puts an item at the end and returns the id of the one before it.
    pub fn push(&mut self, item: Item) -> Option<String> {
        let previous = self.last_id().map(str::to_owned);
        self.items.push(item);
        previous
    }

    /// Puts an item after `previous` (`root`: at the front; `None`: at the end) and returns the id of
    /// the one before it.
    ///
    /// # Errors
    /// When `previous` or a function output's call does not exist, when the id is taken, when the
    /// conversation is full.
    pub fn insert(&mut self, item: Item, previous: Option<&str>) -> Result<Option<String>, ApiError> {
        if self.items.len() >= ITEMS_MAX {
            return Err(ApiError::new("conversation_full", "The conversation holds too many items."));
        }
        if self.get(&item.id).is_some() {
            let message = format!("Error adding item: an item with ID '{}' already exists.", item.id);
            return Err(ApiError::new("item_create_duplicate_item_id", message).at("item.id"));
        }
        if let ItemKind::FunctionCallOutput { call_id, .. } = &item.kind
            && !self.has_call(call_id)
        {
            let message = format!("Tool call ID '{call_id}' not found in conversation.");
            return Err(ApiError::new("invalid_tool_call_id", message).at("item.call_id"));
        }
        let place = match previous {
            None => self.items.len(),
            Some("root") => 0,
            Some(id) => match self.items.iter().position(|item| item.id == id) {
                Some(position) => position + 1,
                None => {
                    let message =
                        format!("Error adding item: the previous item with ID '{id}' does not exist.");
                    return Err(ApiError::new("invalid_value", message).at("previous_item_id"));
                }
            },
        };
        self.items.insert(place, item);
        Ok(place.checked_sub(1).map(|before| self.items[before].id.clone()))
    }

    /// Removes an item.
    ///
    /// # Errors
    /// When it does not exist.
    pub fn delete(&mut self, id: &str) -> Result<(), ApiError> {
        match self.items.iter().position(|item| item.id == id) {
            Some(position) => {
                self.items.remove(position);
                Ok(())
            }
            None => Err(not_found("item_delete_invalid_item_id", "deleting", id)),
        }
    }

    /// Shows an item with its audio.
    ///
    /// # Errors
    /// When it does not exist.
    pub fn retrieve(&self, id: &str) -> Result<Value, ApiError> {
        let item =
            self.get(id).ok_or_else(|| not_found("item_retrieve_invalid_item_id", "retrieving", id))?;
        Ok(item.to_json_with_audio())
    }

    /// Forgets an assistant item's audio after `audio_end_ms`, and its transcript.
    ///
    /// # Errors
    /// When it does not exist, is no assistant audio (yet), or is shorter than that.
    pub fn truncate(&mut self, id: &str, part: usize, audio_end_ms: u64) -> Result<Truncated, ApiError> {
        let item =
            self.get_mut(id).ok_or_else(|| not_found("item_truncate_invalid_item_id", "truncating", id))?;
        let unsupported = || {
            let message = "Only model output audio messages can be truncated";
            ApiError::new("unsupported_content_type", message).at("content_index")
        };
        let ItemKind::Message { role: Role::Assistant, parts } = &mut item.kind else {
            return Err(unsupported());
        };
        let Some(Part::OutputAudio { utterance, samples, transcript }) = parts.get_mut(part) else {
            return Err(unsupported());
        };
        if *samples == 0 {
            return Err(unsupported());
        }
        let rate = u64::from(utterance.format.rate());
        let generated_ms = *samples * 1_000 / rate;
        if audio_end_ms > generated_ms {
            let message =
                format!("Audio content of {generated_ms}ms is already shorter than {audio_end_ms}ms");
            return Err(ApiError::new("invalid_value", message).at("audio_end_ms"));
        }
        if audio_end_ms < generated_ms {
            *samples = audio_end_ms * rate / 1_000;
            *transcript = None;
        }
        Ok(Truncated { generated_ms })
    }

    /// Whether the model made a function call with this id.
    pub fn has_call(&self, id: &str) -> bool {
        self.items
            .iter()
            .any(|item| matches!(&item.kind, ItemKind::FunctionCall { call_id, .. } if call_id == id))
    }

    /// Whether the function call with this id was answered.
    pub fn has_output(&self, id: &str) -> bool {
        let answers =
            |item: &Item| matches!(&item.kind, ItemKind::FunctionCallOutput { call_id, .. } if call_id == id);
        self.items.iter().any(answers)
    }

    /// Ids of function calls nobody answered.
    pub fn unanswered_calls(&self) -> Vec<String> {
        let calls = self.items.iter().filter_map(|item| match &item.kind {
            ItemKind::FunctionCall { call_id, .. } if !self.has_output(call_id) => Some(call_id.clone()),
            _ => None,
        });
        calls.collect()
    }

    /// Text and audio tokens of all items.
    pub fn tokens(&self) -> Tokens {
        self.items.iter().map(Item::tokens).sum()
    }
}

fn not_found(code: &'static str, doing: &str, id: &str) -> ApiError {
    let id: String = id.chars().take(80).collect();
    let message = format!("Error {doing} item: the item with id '{id}' does not exist.");
    ApiError::new(code, message).at("item_id")
}

/// Items one conversation can hold.
const ITEMS_MAX: usize = 10_000;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::format::AudioFormat;
    use super::super::item::ItemStatus;
    use super::super::speech::Utterance;
    use super::*;

    fn message(id: &str, text: &str) -> Item {
        let kind = ItemKind::Message { role: Role::User, parts: vec![Part::InputText(text.into())] };
        Item { id: id.into(), status: ItemStatus::Completed, kind }
    }

    fn spoken(id: &str, ms: u64) -> Item {
        let samples = vec![0; ms as usize * 24];
        let utterance = Arc::new(Utterance::new("hello there", AudioFormat::Pcm, &samples, 100, false));
        let part =
            Part::OutputAudio { utterance, samples: ms * 24, transcript: Some("hello there".to_owned()) };
        let kind = ItemKind::Message { role: Role::Assistant, parts: vec![part] };
        Item { id: id.into(), status: ItemStatus::Completed, kind }
    }

    #[test]
    fn items_go_to_the_front_the_end_or_behind_another() {
        let mut talk = Conversation::default();
        assert_eq!(talk.insert(message("b", ""), None), Ok(None));
        assert_eq!(talk.insert(message("d", ""), None), Ok(Some("b".into())));
        assert_eq!(talk.insert(message("a", ""), Some("root")), Ok(None));
        assert_eq!(talk.insert(message("c", ""), Some("b")), Ok(Some("b".into())));
        let order: Vec<_> = talk.items().iter().map(|item| item.id.as_str()).collect();
        assert_eq!(order, ["a", "b", "c", "d"]);
        assert!(talk.insert(message("a", ""), None).is_err());
        assert!(talk.insert(message("e", ""), Some("nobody")).is_err());
    }

    #[test]
    fn truncation_cannot_lengthen_and_takes_the_words() {
        let mut talk = Conversation::default();
        talk.push(spoken("a", 2_000));
        talk.push(message("u", "hi"));
        assert_eq!(
            talk.truncate("a", 0, 2_001).unwrap_err().message,
            "Audio content of 2000ms is already shorter than 2001ms"
        );
        assert_eq!(talk.truncate("a", 0, 700), Ok(Truncated { generated_ms: 2_000 }));
        assert_eq!(talk.get("a").unwrap().to_json()["content"][0]["transcript"], Value::Null);
        assert_eq!(
            talk.truncate("a", 0, 900).unwrap_err().message,
            "Audio content of 700ms is already shorter than 900ms"
        );
        assert_eq!(talk.truncate("u", 0, 0).unwrap_err().code, "unsupported_content_type");
        assert_eq!(talk.truncate("a", 1, 0).unwrap_err().code, "unsupported_content_type");
        assert_eq!(talk.truncate("x", 0, 0).unwrap_err().code, "item_truncate_invalid_item_id");
    }

    #[test]
    fn a_function_output_needs_its_call() {
        let mut talk = Conversation::default();
        let output = |call: &str| Item {
            id: format!("out_{call}"),
            status: ItemStatus::Completed,
            kind: ItemKind::FunctionCallOutput { call_id: call.into(), output: "{}".into() },
        };
        assert_eq!(talk.insert(output("c1"), None).unwrap_err().code, "invalid_tool_call_id");
        let kind = ItemKind::FunctionCall { call_id: "c1".into(), name: "f".into(), arguments: "{}".into() };
        talk.push(Item { id: "f1".into(), status: ItemStatus::Completed, kind });
        assert_eq!(talk.unanswered_calls(), ["c1"]);
        talk.insert(output("c1"), None).unwrap();
        assert!(talk.unanswered_calls().is_empty());
    }
}
