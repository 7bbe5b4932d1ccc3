//! `chan_websocket`: an Asterisk sends one call's audio over a WebSocket, and plays what it gets from a queue.
