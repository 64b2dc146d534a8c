# StepNet with the ImageNet weights of the plain ResNet: r101 is a difference
# from r50. A leaf takes its entry by `_base_.pop('stepnet')`, so that the
# other one is not in its config.
stepnet = dict(
    r50=dict(
        _delete_=True,
        type='StepNetResNet',
        depth=50,
        frozen_stages=1,
        norm_eval=True,
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50'),
    ),
    r101=dict(depth=101, init_cfg=dict(checkpoint='torchvision://resnet101')),
)
