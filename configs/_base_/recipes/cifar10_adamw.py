# AdamW on CIFAR-10 for networks with layer norm: 6 epochs of one cycle in
# bfloat16. The rate was chosen on held-out training images (docs/evidence.md).
_base_ = [
    'mmpretrain::_base_/default_runtime.py',
    '../datasets/cifar10.py',
]
custom_imports = dict(imports=['mmext'], allow_failed_imports=False)
train_cfg = dict(by_epoch=True, max_epochs=6)
optim_wrapper = dict(
    type='AmpOptimWrapper',
    optimizer=dict(type='AdamW', lr=1.2e-2, weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
)
param_scheduler = dict(
    type='OneCycleLR',
    eta_max=1.2e-2,
    total_steps=6,
    by_epoch=True,
    convert_to_iter_based=True,
)
default_hooks = dict(checkpoint=dict(max_keep_ckpts=1))
