# ResNet-20 with ECA.
# python tools/train.py configs/evidence/resnet20-eca_cifar10.py
# Result: docs/evidence.md.
_base_ = './resnet20_cifar10.py'
model = dict(
    backbone=dict(
        plugins=[dict(cfg=dict(type='ECAAttention'), position='after_conv2')]
    )
)
