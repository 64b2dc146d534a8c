# Mask R-CNN on cell nuclei, from ResNet-18 of CIFAR-10.
# python tools/train.py configs/evidence/mask-rcnn_resnet18_nuclei.py
# Result: docs/evidence.md.
_base_ = [
    '../_base_/models/mask-rcnn_r18_narrow-fpn.py',
    'mmdet::_base_/default_runtime.py',
    '../_base_/datasets/nuclei_instance.py',
    '../_base_/schedules/scratch_12e.py',
]
custom_imports = dict(imports=['mmext'], allow_failed_imports=False)
classes = dict(num_classes=1)
model = dict(
    backbone=dict(
        _delete_=True,
        type='StepNetResNet',
        depth=18,
        stage_with_step=(False, False, False, False),
        norm_eval=False,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/resnet18_cifar10-64/epoch_6.pth',
        ),
    ),
    roi_head=dict(bbox_head=classes, mask_head=classes),
)
