# ResNet-32 with squeeze-and-excitation, reduction 4.
# python tools/train.py configs/evidence/resnet32-se_cifar10.py
# Result: docs/evidence.md.
_base_ = './resnet32_cifar10.py'
model = dict(
    backbone=dict(
        plugins=[
            dict(cfg=dict(type='SEAttention', ratio=4), position='after_conv2')
        ]
    )
)
