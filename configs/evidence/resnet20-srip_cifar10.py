# ResNet-20 with SRIP and its schedule for 200 epochs, scaled to 6.
# python tools/train.py configs/evidence/resnet20-srip_cifar10.py
# Result: docs/evidence.md.
_base_ = './resnet20_cifar10.py'
custom_hooks = [
    dict(
        type='OrthogonalityHook',
        regularizer=dict(type='SRIP'),
        layers='backbone.layer.*conv[12]',
        weight=1.0,
        schedule=[(0, 0.1), (1, 0.001), (2, 0.0001), (3, 1e-6), (4, 0)],
    )
]
