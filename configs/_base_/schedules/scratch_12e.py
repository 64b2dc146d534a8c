# Training from random weights: a higher learning rate than for fine-tuning,
# and validation every second epoch.
_base_ = './adamw_cosine_12e.py'
train_cfg = dict(val_interval=2)
optim_wrapper = dict(optimizer=dict(lr=3e-4))
