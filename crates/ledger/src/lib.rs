//! The durable ledger of a scaler in an embedded store.
