# A small ResNet-18 for images of digits: one channel in, two stages.
backbone = dict(
    type='ResNet',
    depth=18,
    in_channels=1,
    base_channels=32,
    num_stages=2,
    strides=(1, 2),
    dilations=(1, 1),
    out_indices=(1,),
    norm_eval=False,
)
channels = 64
