//! AudioSocket: an Asterisk connects by TCP and sends one call's audio in small framed messages.
