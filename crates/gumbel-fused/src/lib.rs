//! The CPU engine: multi-layer perceptrons on binary images, written out.
