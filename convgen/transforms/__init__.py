"""Fast convolution algorithms as mathematics: bilinear algorithms of one axis and the linear programs they consist of."""
