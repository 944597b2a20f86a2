/* Preloaded into a program: while the file that TEST_READ_ONLY_WHILE names is there, nothing is written in the folder
 * that TEST_READ_ONLY names. So it is on a disk that fails: the kernel makes it read-only under whoever uses it, which no
 * mount option does while files are open for writing. What is mapped into memory stays writable, as it does then. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int is_read_only(void) {
    const char *flag = getenv("TEST_READ_ONLY_WHILE");
    int before = errno, there = flag && access(flag, F_OK) == 0;
    errno = before;
    return there;
}

static int is_inside(const char *path) {
    const char *folder = getenv("TEST_READ_ONLY");
    size_t length = folder ? strlen(folder) : 0;
    return length && strncmp(path, folder, length) == 0 && path[length] == '/';
}

static int is_refused(int file) {
    char link[32], path[4096];
    if (!is_read_only())
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    return is_inside(path);
}

static int refuse(void) {
    errno = EROFS;
    return -1;
}

ssize_t write(int file, const void *from, size_t count) {
    return is_refused(file) ? refuse() : REAL(write)(file, from, count);
}

ssize_t pwrite(int file, const void *from, size_t count, off_t at) {
    return is_refused(file) ? refuse() : REAL(pwrite)(file, from, count, at);
}

ssize_t pwrite64(int file, const void *from, size_t count, off64_t at) {
    return is_refused(file) ? refuse() : REAL(pwrite64)(file, from, count, at);
}

int ftruncate(int file, off_t length) {
    return is_refused(file) ? refuse() : REAL(ftruncate)(file, length);
}

int ftruncate64(int file, off64_t length) {
    return is_refused(file) ? refuse() : REAL(ftruncate64)(file, length);
}

int unlink(const char *path) {
    return is_inside(path) && is_read_only() ? refuse() : REAL(unlink)(path);
}

#define OPEN(name)                                                                                                     \
    int name(const char *path, int flags, ...) {                                                                       \
        va_list rest;                                                                                                  \
        va_start(rest, flags);                                                                                         \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;                                        \
        va_end(rest);                                                                                                  \
        int writes = (flags & O_ACCMODE) != O_RDONLY || flags & (O_CREAT | O_TRUNC);                                   \
        return writes && is_inside(path) && is_read_only() ? refuse() : REAL(name)(path, flags, mode);                 \
    }

OPEN(open)
OPEN(open64)
