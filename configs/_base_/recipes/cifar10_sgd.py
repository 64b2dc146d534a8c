# SGD on CIFAR-10 for networks with batch norm: 15 epochs of one cycle in
# bfloat16. The rate was chosen on held-out training images (docs/evidence.md).
_base_ = [
    'mmpretrain::_base_/default_runtime.py',
    '../datasets/cifar10.py',
]
custom_imports = dict(imports=['mmext'], allow_failed_imports=False)
train_cfg = dict(by_epoch=True, max_epochs=15)
optim_wrapper = dict(
    type='AmpOptimWrapper',
    optimizer=dict(
        type='SGD', lr=0.2, momentum=0.9, nesterov=True, weight_decay=5e-4
    ),
)
param_scheduler = dict(
    type='OneCycleLR',
    eta_max=0.2,
    total_steps=15,
    by_epoch=True,
    convert_to_iter_based=True,
)
default_hooks = dict(checkpoint=dict(max_keep_ckpts=1))
