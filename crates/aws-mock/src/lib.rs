//! A stand-in for the calls of AWS that instance groups need, with time, capacity and faults.
