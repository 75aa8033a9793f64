/* The smallest fast file system with libfuse's low-level interface: what ours is compared with.
 *
 *     minifs TREE CONTENT MOUNTPOINT [no-open]
 *
 * Shows a copy of TREE, read-only.  At the start the tree is walked into memory and the bytes of all regular files are
 * written one after the other into CONTENT, so that a read is one pread(2) of an open file.  One thread; timeouts of a
 * day; readdirplus; reads of up to 1 MiB; the kernel keeps its caches.  With no-open, open and opendir are answered
 * with ENOSYS, so that the kernel stops asking.
 */
#define FUSE_USE_VERSION 312
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define DAY 86400.0
#define MAX_READ (1 << 20)

struct node {
    struct stat attributes;
    off_t content_offset;
    char *name, *target;
    fuse_ino_t parent, first_child, child_count;
};

static struct node *nodes; /* inode N is nodes[N - 1]; the children of a directory are neighbours, sorted by name */
static size_t node_count, node_room;
static int content, no_open;
static off_t content_size;
static char *read_buffer;

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static struct node *node_of(fuse_ino_t inode) { return &nodes[inode - 1]; }

static fuse_ino_t add_node(const char *name, fuse_ino_t parent)
{
    if (node_count == node_room) {
        node_room = node_room ? 2 * node_room : 4096;
        if (!(nodes = realloc(nodes, node_room * sizeof *nodes)))
            fail("memory");
    }
    nodes[node_count] = (struct node){.name = strdup(name), .parent = parent};
    return ++node_count;
}

static void copy_content(int file, struct node *node)
{
    node->content_offset = content_size;
    for (off_t left = node->attributes.st_size; left > 0;) {
        ssize_t copied = copy_file_range(file, NULL, content, &content_size, left, 0);
        if (copied <= 0)
            fail("copying a file");
        left -= copied;
    }
}

static void fill(fuse_ino_t inode, int parent_directory, const char *name)
{
    struct stat *attributes = &node_of(inode)->attributes;
    if (fstatat(parent_directory, name, attributes, AT_SYMLINK_NOFOLLOW))
        fail(name);
    attributes->st_ino = inode;
    if (S_ISLNK(attributes->st_mode)) {
        char target[4096] = "";
        if (readlinkat(parent_directory, name, target, sizeof target - 1) < 0)
            fail(name);
        node_of(inode)->target = strdup(target);
        return;
    }
    if (!S_ISREG(attributes->st_mode) && !S_ISDIR(attributes->st_mode))
        return;
    int descriptor = openat(parent_directory, name, O_RDONLY | O_NOFOLLOW);
    if (descriptor < 0)
        fail(name);
    if (S_ISREG(attributes->st_mode)) {
        copy_content(descriptor, node_of(inode));
    } else {
        struct dirent **names;
        int count = scandirat(descriptor, ".", &names, NULL, alphasort);
        if (count < 0)
            fail(name);
        fuse_ino_t first = node_count + 1;
        for (int i = 0; i < count; i++) {
            if (strcmp(names[i]->d_name, ".") && strcmp(names[i]->d_name, ".."))
                add_node(names[i]->d_name, inode);
            free(names[i]);
        }
        free(names);
        node_of(inode)->first_child = first;
        node_of(inode)->child_count = node_count + 1 - first;
        for (fuse_ino_t child = first, end = node_count + 1; child < end; child++)
            fill(child, descriptor, node_of(child)->name);
    }
    close(descriptor);
}

static void entry_of(fuse_ino_t inode, struct fuse_entry_param *entry)
{
    *entry = (struct fuse_entry_param){.ino = inode, .attr_timeout = DAY, .entry_timeout = DAY};
    if (inode)
        entry->attr = node_of(inode)->attributes;
}

static void on_init(void *data, struct fuse_conn_info *connection)
{
    (void)data;
    connection->want |= connection->capable & (FUSE_CAP_READDIRPLUS | FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_CACHE_SYMLINKS);
    connection->want &= ~(FUSE_CAP_READDIRPLUS_AUTO | FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE);
    connection->max_read = MAX_READ;
    connection->max_readahead = MAX_READ;
}

static void on_lookup(fuse_req_t request, fuse_ino_t parent, const char *name)
{
    fuse_ino_t low = node_of(parent)->first_child, high = low + node_of(parent)->child_count, found = 0;
    while (low < high && !found) {
        fuse_ino_t middle = low + (high - low) / 2;
        int order = strcmp(name, node_of(middle)->name);
        if (!order)
            found = middle;
        else if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    struct fuse_entry_param entry;
    entry_of(found, &entry);
    fuse_reply_entry(request, &entry);
}

static void on_getattr(fuse_req_t request, fuse_ino_t inode, struct fuse_file_info *file)
{
    (void)file;
    fuse_reply_attr(request, &node_of(inode)->attributes, DAY);
}

static void on_readlink(fuse_req_t request, fuse_ino_t inode) { fuse_reply_readlink(request, node_of(inode)->target); }

static void on_open(fuse_req_t request, fuse_ino_t inode, struct fuse_file_info *file)
{
    (void)inode;
    file->keep_cache = 1;
    file->noflush = 1;
    file->cache_readdir = 1;
    if (no_open)
        fuse_reply_err(request, ENOSYS);
    else
        fuse_reply_open(request, file);
}

static void on_read(fuse_req_t request, fuse_ino_t inode, size_t size, off_t offset, struct fuse_file_info *file)
{
    (void)file;
    struct node *node = node_of(inode);
    if (offset >= node->attributes.st_size)
        size = 0;
    else if ((off_t)size > node->attributes.st_size - offset)
        size = node->attributes.st_size - offset;
    ssize_t got = pread(content, read_buffer, size, node->content_offset + offset);
    if (got < 0)
        fuse_reply_err(request, errno);
    else
        fuse_reply_buf(request, read_buffer, got);
}

static void list(fuse_req_t request, fuse_ino_t inode, size_t size, off_t offset, int plus)
{
    struct node *directory = node_of(inode);
    char *buffer = read_buffer;
    size_t used = 0;
    if (size > MAX_READ)
        size = MAX_READ;
    for (off_t position = offset; position < (off_t)directory->child_count + 2; position++) {
        fuse_ino_t child = position == 0 ? inode : position == 1 ? directory->parent : directory->first_child + position - 2;
        const char *name = position == 0 ? "." : position == 1 ? ".." : node_of(child)->name;
        struct fuse_entry_param entry;
        entry_of(child, &entry);
        size_t needed = plus ? fuse_add_direntry_plus(request, buffer + used, size - used, name, &entry, position + 1)
                             : fuse_add_direntry(request, buffer + used, size - used, name, &entry.attr, position + 1);
        if (needed > size - used)
            break;
        used += needed;
    }
    fuse_reply_buf(request, buffer, used);
}

static void on_readdir(fuse_req_t request, fuse_ino_t inode, size_t size, off_t offset, struct fuse_file_info *file)
{
    (void)file;
    list(request, inode, size, offset, 0);
}

static void on_readdirplus(fuse_req_t request, fuse_ino_t inode, size_t size, off_t offset, struct fuse_file_info *file)
{
    (void)file;
    list(request, inode, size, offset, 1);
}

static void on_getxattr(fuse_req_t request, fuse_ino_t inode, const char *name, size_t size)
{
    (void)inode, (void)name, (void)size;
    fuse_reply_err(request, ENOSYS);
}

static const struct fuse_lowlevel_ops operations = {
    .init = on_init,
    .lookup = on_lookup,
    .getattr = on_getattr,
    .readlink = on_readlink,
    .open = on_open,
    .opendir = on_open,
    .read = on_read,
    .readdir = on_readdir,
    .readdirplus = on_readdirplus,
    .getxattr = on_getxattr,
};

int main(int count, char **words)
{
    if (count < 4) {
        fprintf(stderr, "usage: minifs TREE CONTENT MOUNTPOINT [no-open]\n");
        return 2;
    }
    no_open = count > 4 && !strcmp(words[4], "no-open");
    content = open(words[2], O_RDWR | O_CREAT | O_TRUNC, 0600);
    if (content < 0)
        fail(words[2]);
    if (!(read_buffer = aligned_alloc(4096, MAX_READ)))
        fail("memory");
    add_node("", FUSE_ROOT_ID);
    fill(FUSE_ROOT_ID, AT_FDCWD, words[1]);

    char *mount_words[] = {"minifs", "-o", "fsname=minifs,default_permissions,allow_other,max_read=1048576", NULL};
    struct fuse_args arguments = FUSE_ARGS_INIT(3, mount_words);
    struct fuse_session *session = fuse_session_new(&arguments, &operations, sizeof operations, NULL);
    if (!session || fuse_set_signal_handlers(session) || fuse_session_mount(session, words[3]))
        return 1;
    int status = fuse_session_loop(session);
    fuse_session_unmount(session);
    fuse_remove_signal_handlers(session);
    fuse_session_destroy(session);
    return status < 0;
}
