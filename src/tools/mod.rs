//! What assistants can do besides speaking: definitions, checked arguments, handlers.
