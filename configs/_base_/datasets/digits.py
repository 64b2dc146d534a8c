# The experiments on scikit-learn's handwritten digits.
train_images = 1000
seeds = [0, 1, 2]
