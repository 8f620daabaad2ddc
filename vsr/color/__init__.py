"""Convert, resample and describe pixels as tensors, without PyAV."""
