//! The async shell around taskscaler-core: applies plans to an instance group.
