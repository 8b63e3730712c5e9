//! Content-addressed cache of locked inputs.
