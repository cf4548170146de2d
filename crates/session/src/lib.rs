//! Interactive web terminals of running jobs, over TLS.
