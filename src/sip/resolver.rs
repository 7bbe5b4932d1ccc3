//! The shell of `dns`: asks the name servers and remembers their answers.
