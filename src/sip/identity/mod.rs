//! Who calls whom, as trunks want it written.
