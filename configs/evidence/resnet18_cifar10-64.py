# ResNet-18 on CIFAR-10 at 64x64: the pre-training of detectors.
# python tools/train.py configs/evidence/resnet18_cifar10-64.py
# Result: docs/evidence.md.
_base_ = '../_base_/recipes/cifar10_sgd.py'
resize = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(64, 64))]
flip = dict(type='RandomFlip', prob=0.5, direction='horizontal')
crop = dict(type='RandomCrop', crop_size=64, padding=8)
pack = dict(type='PackInputs')
train_dataloader = dict(dataset=dict(pipeline=[*resize, crop, flip, pack]))
test_dataloader = dict(dataset=dict(pipeline=[*resize, pack]))
train_cfg = dict(max_epochs=6)
param_scheduler = dict(total_steps=6)
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='StepNetResNet',
        depth=18,
        out_indices=(3,),
        stage_with_step=(False, False, False, False),
        norm_eval=False,
        zero_init_residual=False,
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=512),
)
