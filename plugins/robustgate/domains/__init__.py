"""Data sets, one kind a file; what each expects on disk, and its own docstring the rest.

- `image_folder`: ``root/<class>/<file>``, any image files.
- `npz`: one .npz file a split, arrays ``images``, ``labels`` and ``classes``: CIFAR-10.2, MNIST, USPS.
- `npy`: one .npy file of images and one of labels a split: CIFAR-10.1.
- `domain_benchmark`: Office-31, Office-Home, PACS, DomainNet or VLCS as they are unpacked, ``root/<domain>/<class>/``.
- `imagenet_v2`: ``root/<number of the class>/<file>``.
- `webdataset`: tar files with ``<sample>.jpg`` and ``<sample>.cls`` or ``<sample>.json``.
- `callable`: nothing; a Python function returns the data set, with items (image, label).
- `digits`: nothing; digits in three styles, drawn from what installed packages carry.

Two hold corrupted images only, which ``shifts.corruptions.stored`` measures instead of corrupting images itself:

- `cifar_c`: CIFAR-10-C and CIFAR-100-C, ``root/<corruption>.npy`` and ``root/labels.npy``.
- `imagenet_c`: ``root/[<group>/]<corruption>/<severity>/<class>/<file>``.
"""
