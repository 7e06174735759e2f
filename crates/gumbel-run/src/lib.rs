//! What a run is: configuration, training loop, evaluation, folder, metrics, checkpoints, pictures.
