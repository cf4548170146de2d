//! Pure scaling decisions: policies, math, bookkeeping of slots and uses.
