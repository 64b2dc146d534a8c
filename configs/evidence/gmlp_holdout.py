# For the recipe of gMLP: tests on 5,000 training images.
# python tools/train.py configs/evidence/gmlp_holdout.py
# Result: docs/evidence.md.
_base_ = './gmlp-d4-w64_cifar10.py'
tenth = dict(type='KFoldDataset', num_splits=10, seed=0)
train_dataloader = dict(
    dataset=dict(
        _delete_=True, dataset={{_base_.train_dataloader.dataset}}, **tenth
    )
)
test_dataloader = dict(
    dataset=dict(
        _delete_=True,
        test_mode=True,
        dataset=dict(
            type='CustomDataset',
            data_prefix={{_base_.train_dataloader.dataset.data_prefix}},
            pipeline={{_base_.test_dataloader.dataset.pipeline}},
        ),
        **tenth,
    )
)
