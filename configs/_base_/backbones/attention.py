# ResNet with channel attention after the last convolution of each bottleneck.
# A leaf takes its entry by `_base_.pop('attention')`, so that the others are
# not in its config.
attention = dict(
    se=dict(
        type='PluginResNet',
        plugins=[
            dict(
                cfg=dict(type='SEAttention', ratio=16, bias=False),
                position='after_conv3',
            )
        ],
    ),
    eca=dict(
        type='PluginResNet',
        plugins=[dict(cfg=dict(type='ECAAttention'), position='after_conv3')],
    ),
    fca=dict(
        type='PluginResNet',
        plugins=[
            dict(
                cfg=dict(type='FCAAttention', ratio=16),
                position='after_conv3',
            )
        ],
    ),
    srm=dict(
        type='PluginResNet',
        plugins=[dict(cfg=dict(type='SRMAttention'), position='after_conv3')],
    ),
)
